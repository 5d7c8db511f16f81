"""A Prometheus of a test's own, and promtool."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is; skips the test where it is not installed, which CI must not do."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (apt-get install --no-install-recommends prometheus)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*arguments: str | Path) -> str:
    """What promtool says, which has to be content."""
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def parse(expressions: Sequence[str], folder: Path) -> None:
    """Fails where an expression is no PromQL, by making a rule of each."""
    rules = [{"record": f"parsed:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = folder / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}))
    # They have to parse; that names are no metric names, or rules alike, is of no interest here.
    promtool("check", "rules", "--lint=none", path)


class Server:
    """A Prometheus on loopback."""

    def __init__(self, url: str, log: Path) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._log = log

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        answer = self._client.post("/api/v1/query", data={"query": expression})
        assert answer.status_code == 200, f"{expression}\n{answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def until(self, expression: str, seconds: float = 30) -> None:
        """Waits until an expression has series."""
        deadline = time.monotonic() + seconds
        while not self.query(expression):
            assert time.monotonic() < deadline, f"still nothing of {expression}\n{self._log.read_text()[-3000:]}"
            time.sleep(0.2)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when it answers."""
        deadline = time.monotonic() + 30
        while not self._ready():
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        """Lets go of its connections."""
        self._client.close()

    def _ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(folder: Path, config: Mapping[str, Any]) -> Iterator[Server]:
    """A Prometheus with this configuration, for the time of a test."""
    path, log, port = folder / "prometheus.yaml", folder / "prometheus.log", _free_port()
    path.write_text(yaml.safe_dump(dict(config)))
    command = [program("prometheus"), f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}", "--query.max-concurrency=2"],
            stdout=output,
            stderr=output,
            env={"GOMAXPROCS": "1"},
        )
    server = Server(f"http://127.0.0.1:{port}", log)
    try:
        server.wait(process)
        yield server
    finally:
        server.close()
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
