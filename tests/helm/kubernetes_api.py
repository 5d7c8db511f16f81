"""As much of a Kubernetes API as Helm's `lookup` asks: the Secrets of a cluster, on a real socket."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.helm.rendering import NAMESPACE, Object

_KINDS: Mapping[str, object] = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [{"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": []}],
    },
}
_MISSING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@contextmanager
def cluster(*secrets: Object) -> Iterator[str]:
    """The address of an API that has these Secrets, as a chart wrote them."""
    there = {f"/api/v1/namespaces/{NAMESPACE}/secrets/{each['metadata']['name']}": stored(each) for each in secrets}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler({**_KINDS, **there}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stored(secret: Object) -> Object:
    """A Secret as the API gives it back: all of it under `data`, in base64."""
    texts = {name: base64.b64encode(text.encode()).decode() for name, text in secret.get("stringData", {}).items()}
    kept = {name: value for name, value in secret.items() if name != "stringData"}
    return {**kept, "data": {**secret.get("data", {}), **texts}}


def _handler(answers: Mapping[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or _MISSING).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Says nothing."""

    return Handler
