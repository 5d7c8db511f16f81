"""The engine's pod as the chart writes it, run here: its command, its probe, the test's question, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from gateway.demo.model import write_model
from tests.helm.kubelet import command
from tests.helm.rendering import helm_template, only, pod_specs

#: The engine is up in about 40 s, longer on a busy machine.
START_SECONDS = 300

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def test_rendered_pod_becomes_ready_answers_and_ends_well(tmp_path: Path) -> None:
    write_model(tmp_path / "gemma")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {
        "model": str(tmp_path / "gemma"),
        "host": "127.0.0.1",
        "port": port,
        "gpu": {"resource": ""},
        "args": {"enforce-eager": True, "dtype": "float32"},
        "fullnameOverride": "localhost",
    }
    objects = helm_template("engine", given)
    (engine,) = pod_specs([only(objects, "Deployment")])[0]["containers"]
    probe = f"http://127.0.0.1:{port}{engine['readinessProbe']['httpGet']['path']}"
    with subprocess.Popen(command(engine), env={**os.environ, "HOME": str(tmp_path)}) as running:
        try:
            await_ready(probe, running)
            (ask,) = only(objects, "Pod")["spec"]["containers"]
            asked = subprocess.run(command(ask), capture_output=True, text=True, timeout=120)
            assert asked.returncode == 0, asked.stderr
            assert asked.stdout.count("ok: ") == 2
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
        finally:
            running.kill()


def await_ready(probe: str, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        try:
            if httpx.get(probe, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    pytest.fail("the engine did not become ready")
