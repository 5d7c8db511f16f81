"""Shows Prometheus over TCP what is elsewhere: an engine's metrics on its Unix socket, and recorded samples."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

#: A page's type and body, by the header Accept.
Page = Callable[[str], tuple[str, bytes]]

TEXT = "text/plain; version=0.0.4"


def recorded(path: Path) -> Page:
    """A file of samples."""
    return lambda _: (TEXT, path.read_bytes())


def picture(body: bytes) -> Page:
    """An image for the gateway to fetch."""
    return lambda _: ("image/png", body)


def behind(socket: Path) -> Page:
    """The metrics of whoever listens at a Unix socket, in the format that is asked for."""

    def page(accept: str) -> tuple[str, bytes]:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=10
        ) as client:
            answer = client.get("/metrics", headers={"accept": accept})
        return answer.headers["content-type"], answer.content

    return page


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A Prometheus that does not wait for the end of a page is no fault."""


@contextmanager
def serving(pages: Mapping[str, Page]) -> Iterator[str]:
    """Serves pages by their path on a free port of loopback; the address, such as 127.0.0.1:4711."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = pages[self.path](self.headers.get("accept", ""))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            """Prometheus asks once a second."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
