"""A Valkey or Redis server of a test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from gateway.settings import OnFailure, StoreSettings

SERVERS = ("valkey-server", "redis-server")


class Server:
    """The server, on a Unix socket, without persistence: what it knew is gone when it has stopped."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = directory / "store.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def settings(self, on_failure: OnFailure = OnFailure.LOCAL, timeout: float = 2.0) -> StoreSettings:
        """For quotas in it. The time is for machines that are busy with other tests."""
        return StoreSettings(url=self.url, on_failure=on_failure, timeout_seconds=timeout)

    def client(self) -> Redis:
        return Redis.from_url(self.url)

    def start(self) -> None:
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        with (self._directory / "store.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *arguments, "--dir", str(self._directory)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, (self._directory / "store.log").read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


def program() -> str:
    """The server that is installed; skips the test where there is none, which CI must not do."""
    found = next((path for name in SERVERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"none of {', '.join(SERVERS)} is installed (apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """A server for the time of a test."""
    server = Server(program(), directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
