"""The small Valkey of the gateway chart starts by its own command, and lets in nobody without the password."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from tests.access.valkey import program
from tests.helm.rendering import helm_template, only

VALUES: dict[str, Any] = {
    "config": {"engines": {"default": {"url": "http://e:8000"}}, "models": {"gemma": {"served_name": "g"}}},
    "valkey": {"enabled": True, "maxMemory": "32mb"},
}
PASSWORD = "sesame42"


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """Runs the container's command with its folders in a test's own, and on a socket there in place of the port."""
    path = tmp_path / "valkey.sock"
    (tmp_path / "valkey-server").symlink_to(program())
    (tmp_path / "password").write_text(PASSWORD)
    (container,) = only(helm_template("gateway", VALUES), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/data", str(tmp_path)).replace("/etc/valkey-password", str(tmp_path))
    script = script.replace("appendonly no", f"appendonly no\nport 0\nunixsocket {path}\ndir {tmp_path}")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([*container["command"], script], env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


def test_it_serves_who_has_the_password_and_never_evicts(socket: Path) -> None:
    with Redis(unix_socket_path=str(socket), password=PASSWORD) as client:
        assert client.ping() is True
        assert client.config_get("maxmemory*") == {
            "maxmemory": str(32 * 2**20),
            "maxmemory-policy": "noeviction",
            "maxmemory-samples": "5",
            "maxmemory-eviction-tenacity": "10",
            "maxmemory-clients": "0",
        }
        assert client.config_get("save") == {"save": ""}
    with Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(RedisError) as refused:
        stranger.ping()
    assert isinstance(refused.value, AuthenticationError)
