"""`serve` as a user starts and stops it, with the real engine."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import gateway.launcher
from gateway.launcher import group_members
from tests.engine.conftest import ENGINE_ARGS

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Serve:
    """A `serve` that may still be loading, with the folder of its socket and state."""

    process: subprocess.Popen[str]
    folder: Path

    def children(self) -> list[int]:
        """Engine and gateway, which lead their groups, once both are there."""
        while True:
            with suppress(FileNotFoundError):
                state = json.loads((self.folder / "state.json").read_text())
                if state["engine_pid"] and state["gateway_pid"]:
                    return [state["engine_pid"], state["gateway_pid"]]
            time.sleep(0.05)


@contextmanager
def serve(model: Path, folder: Path, *arguments: str) -> Iterator[Serve]:
    command = [sys.executable, "-m", "gateway", "serve", str(model), "--port", "0", "--admin-port", "0"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, "--runtime-dir", str(folder), *arguments], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield Serve(process, folder)
        finally:
            process.kill()


def wait_until_gone(groups: list[int]) -> None:
    end = time.monotonic() + 10
    while left := [pid for group in groups for pid in group_members(group)]:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_ready_line_can_be_pasted_and_sigterm_lets_a_stream_finish_and_leaves_nothing(
    model: Path, tmp_path: Path
) -> None:
    with serve(model, tmp_path, "--served-model-name", "gemma", *ENGINE_ARGS) as served:
        assert served.process.stdout
        line = served.process.stdout.readline()
        curl = re.fullmatch(r"Ready in \d+ s: (curl .*)\n", line)
        assert curl
        reply = subprocess.run(["bash", "-c", curl[1]], capture_output=True, check=True, timeout=60)
        assert json.loads(reply.stdout)["choices"][0]["message"]["role"] == "assistant"

        groups = served.children()
        url = curl[1].split()[1]
        body = {"messages": [{"role": "user", "content": "Go on"}], "max_tokens": 200, "ignore_eos": True}
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as response:
            events = response.iter_lines()
            next(events)
            served.process.send_signal(signal.SIGTERM)
            assert [event for event in events if event][-1] == "data: [DONE]"

        assert served.process.wait(60) == 0
        assert served.process.stdout.read() == ""
        wait_until_gone(groups)


def test_sigterm_while_the_engine_loads_ends_all(model: Path, tmp_path: Path) -> None:
    with serve(model, tmp_path) as served:
        groups = served.children()
        time.sleep(5)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        wait_until_gone(groups)


def test_children_end_when_the_supervisor_is_killed(model: Path, tmp_path: Path) -> None:
    with serve(model, tmp_path) as served:
        groups = served.children()
        time.sleep(5)
        served.process.kill()
        wait_until_gone(groups)


def test_requests_while_the_engine_loads_wait_and_then_get_503_with_retry_after(model: Path, tmp_path: Path) -> None:
    with serve(model, tmp_path) as served:
        groups = served.children()
        url = json.loads((tmp_path / "state.json").read_text())["url"]
        transport = httpx.HTTPTransport(retries=5)
        # They wait for it first (hold.seconds, 10), but not so long as it takes.
        with httpx.Client(transport=transport, base_url=url, timeout=25) as client:
            reply = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(30)
        wait_until_gone(groups)


def test_fault_of_the_engine_is_reported_by_launch(model: Path) -> None:
    with pytest.raises(gateway.launcher.LaunchError, match=r"serve exited with code 2\n(.|\n)*--no-such-flag"):
        gateway.launch(model, engine_args=["--no-such-flag"])


def test_port_in_use_is_told_before_the_engine_loads(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "gateway", "serve", str(model), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert re.search(rf"cannot listen on 127.0.0.1:{port}: .* --port {port + 1}", done.stderr)
    assert "Traceback" not in done.stderr
