"""The stack that the guides and the client examples talk to, as a reader of theirs has started it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import gateway
from gateway.demo.model import write_model
from gateway.launcher import Server
from tests.guides.pages import CLIENTS, ROOT, blocks

#: What the guides say to start the engine with, and what the small model wants on a processor.
ENGINE_ARGS = ["--enable-per-request-metrics", "--enforce-eager", "--dtype", "float32"]


@dataclass(frozen=True)
class Desk:
    """Where a reader works: a folder with the samples, a gateway, and a web server that has the samples, too."""

    folder: Path
    server: Server
    web: str

    def run(self, command: list[str]) -> str:
        """Runs a command of a guide against this gateway and this web server, and returns what it prints."""
        here = [self._here(argument) for argument in command]
        done = subprocess.run(
            here, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done.stdout

    def _here(self, text: str) -> str:
        text = text.replace("https://example.com", self.web)
        return text.replace("http://127.0.0.1:8000", self.server.url)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OPENAI_BASE_URL": self.server.base_url, "OPENAI_API_KEY": "any"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Says nothing."""


@pytest.fixture(scope="session")
def web_and_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The folder of a reader with the samples that the guides make, and a web server over it."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    subprocess.run([sys.executable, CLIENTS / "samples.py", folder / "samples"], check=True, timeout=60)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "samples"))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}", folder
        web.shutdown()


@pytest.fixture(scope="session")
def desk(web_and_folder: tuple[str, Path]) -> Iterator[Desk]:
    """A running stack with the small Gemma 4, configured as the guide says; loopback may be fetched from, too."""
    web, folder = web_and_folder
    write_model(folder / "gemma", trained=True)
    (document,) = [yaml.safe_load(block) for block in blocks("gemma-3n", "yaml")]
    document["media"] |= {"folder": str(folder / "samples"), "allowed_networks": ["127.0.0.0/8"]}
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(document))
    with gateway.launch(folder / "gemma", engine_args=ENGINE_ARGS, config=config) as server:
        yield Desk(folder, server, web)
