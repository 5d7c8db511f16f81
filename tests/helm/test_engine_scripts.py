"""The scripts that the engine chart's pods run do what they say, against real sockets."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from tests.helm.engine_values import COMMIT
from tests.helm.rendering import CHARTS

FILES = CHARTS / "engine" / "files"
SECONDS = 30


def run(script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script as the chart does: by its text."""
    command = [sys.executable, "-c", (FILES / script).read_text(), *words]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for: one model with a file that is wanted and one that is not."""

    FILES: Mapping[str, bytes] = {"config.json": b'{"model_type": "gemma4"}', "weights.gguf": b"unwanted"}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/me/gemma/revision/"):
            siblings = [{"rfilename": name} for name in self.FILES]
            self._answer(json.dumps({"id": "me/gemma", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/api/models/me/gemma/tree/"):
            tree = [{"type": "file", "path": name, "size": len(text), "oid": "0"} for name, text in self.FILES.items()]
            self._answer(json.dumps(tree).encode())
        elif path == f"/me/gemma/resolve/{COMMIT}/config.json":
            self._answer(self.FILES["config.json"])
        else:
            self.send_error(404)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the parent gave it
        """Says nothing."""


def wanted(model: str) -> str:
    return json.dumps({"model": model, "revision": COMMIT, "also": [], "ignore": ["*.gguf"]})


def test_download_fills_the_cache_and_leaves_its_mark(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    mark = tmp_path / "complete" / "mark"
    with serving(Hub) as url:
        done = run("download.py", wanted("me/gemma"), str(mark), HF_ENDPOINT=url, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert mark.exists()
    snapshot = tmp_path / "hub" / "models--me--gemma" / "snapshots" / COMMIT
    assert [path.name for path in snapshot.iterdir()] == ["config.json"]


def test_download_that_fails_leaves_no_mark(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    mark = tmp_path / "complete" / "mark"
    with serving(Hub) as url:
        done = run("download.py", wanted("me/other"), str(mark), HF_ENDPOINT=url, HF_HOME=str(tmp_path))
    assert done.returncode != 0
    assert not mark.exists()


def test_wait_ends_with_the_mark(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", (FILES / "wait.py").read_text(), str(mark)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            assert waiting.stdout is not None
            assert str(mark) in waiting.stdout.readline()
            assert waiting.poll() is None
            mark.touch()
            assert waiting.wait(SECONDS) == 0
        finally:
            waiting.kill()


class Engine(BaseHTTPRequestHandler):
    """Answers every chat, and keeps what it was asked."""

    asked: ClassVar[list[Any]]
    tokens = 3

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        answer = {"choices": [{"message": {"content": "Hello"}}], "usage": {"completion_tokens": self.tokens}}
        body = json.dumps(answer).encode()
        self.send_response(200 if self.path == "/v1/chat/completions" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the parent gave it
        """Says nothing."""


@pytest.mark.parametrize("sees", [True, False])
def test_ask_sends_a_completion_and_an_image_to_models_that_see(sees: bool) -> None:
    class Asked(Engine):
        asked: ClassVar[list[Any]] = []

    with serving(Asked) as url:
        done = run("ask.py", url, "gemma", str(sees).lower(), "10")
    assert done.returncode == 0, done.stderr
    contents = [body["messages"][0]["content"] for body in Asked.asked]
    assert contents[0] == "Say hello."
    assert len(contents) == 1 + sees
    if sees:
        head, _, data = contents[1][0]["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((16, 16)) == (255, 0, 0)


def test_ask_fails_where_nothing_was_said() -> None:
    class Silent(Engine):
        asked: ClassVar[list[Any]] = []
        tokens = 0

    with serving(Silent) as url:
        assert run("ask.py", url, "gemma", "false", "10").returncode != 0


def test_ask_fails_where_no_engine_is() -> None:
    assert run("ask.py", "http://127.0.0.1:1", "gemma", "false", "5").returncode != 0
