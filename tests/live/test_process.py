"""The gateway as a process of its own: ready, draining, ended."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.access import key_edits
from gateway.settings import Grant, Limits
from tests import fake_engine
from tests.fake_engine import FakeEngine, Received, begin, event, send
from tests.live.conftest import MESSAGES

STREAM = {"model": "gemma", "messages": MESSAGES, "stream": True}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Process:
    """A running `gemma-gateway gateway`."""

    engine: FakeEngine
    child: asyncio.subprocess.Process
    url: str
    admin_url: str


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    async with started(tmp_path) as running:
        yield running


@asynccontextmanager
async def started(folder: Path, **sections: Any) -> AsyncIterator[Process]:
    """A process with further sections in its configuration, of which `server` may say the ports."""
    server = {"port": free_port(), "admin_port": free_port(), "drain_seconds": 20, **sections.pop("server", {})}
    port, admin_port = server["port"], server["admin_port"]
    async with fake_engine.running() as engine:
        config = folder / "gateway.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "server": server,
                    "engines": {"default": {"url": engine.url, "probe_seconds": 0.1}},
                    "models": {"gemma": {}},
                    "logs": {"format": "json"},
                    **sections,
                }
            )
        )
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "gateway", "--config", str(config), stderr=asyncio.subprocess.PIPE
        )
        running = Process(engine, child, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")
        try:
            await until(f"{running.admin_url}/readyz", 200)
            yield running
        finally:
            if child.returncode is None:
                child.kill()
                await child.communicate()


async def until(url: str, status: int) -> httpx.Response:
    """Asks until the answer has `status`, at most 20 s."""
    async with httpx.AsyncClient() as client, asyncio.timeout(20):
        while True:
            try:
                response = await client.get(url)
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == status:
                return response
            await asyncio.sleep(0.05)


def slow_stream(go_on: asyncio.Event) -> fake_engine.Behaviour:
    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("before"))
        await go_on.wait()
        await send(writer, event("after") + b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


async def test_admin_port_tells_liveness_readiness_and_metrics(process: Process) -> None:
    async with httpx.AsyncClient(base_url=process.admin_url) as client:
        ready, live, metrics = [await client.get(path) for path in ("/readyz", "/livez", "/metrics")]

    assert ready.json() == {
        "status": "ready",
        "engines": {"default": "ready"},
        "replicas": {"default": {process.engine.url.removeprefix("http://"): "ready"}},
        "configuration": "ok",
        "keys": "ok",
    }
    assert live.status_code == 200
    assert 'gemma_gateway_engine_ready{engine="default"} 1.0' in metrics.text


NOT_YET = {"company": "not read yet"}


async def test_readiness_tells_of_the_quota_store_and_of_token_providers_and_stays(tmp_path: Path) -> None:
    keys, nowhere = tmp_path / "keys.yaml", f"127.0.0.1:{free_port()}"
    key = key_edits.create(keys, "alice", Grant(limits=Limits(requests_per_minute=9)))
    provider = {"issuer": f"http://{nowhere}", "audience": ["gemma"]}
    quotas = {"store": {"url": f"redis://{nowhere}/0"}}
    auth = {"keys_file": str(keys), "jwt": {"company": provider}}
    async with started(tmp_path, auth=auth, quotas=quotas) as process, httpx.AsyncClient() as client:
        first = await client.get(f"{process.admin_url}/readyz")
        body, headers = {"model": "gemma", "messages": MESSAGES}, {"authorization": f"Bearer {key}"}
        answer = await client.post(f"{process.url}/v1/chat/completions", json=body, headers=headers)
        async with asyncio.timeout(9):
            while (later := await client.get(f"{process.admin_url}/readyz")).json()["token_providers"] == NOT_YET:
                await asyncio.sleep(0.05)
        metrics = await client.get(f"{process.admin_url}/metrics")

    assert (first.status_code, first.json()["quota_store"]) == (200, "ok")
    assert answer.status_code == 200
    assert (later.status_code, later.json()["status"], later.json()["quota_store"]) == (200, "ready", "unavailable")
    assert "connection" in later.json()["token_providers"]["company"]
    assert failures(metrics.text) >= 1


async def test_failures_of_quota_stores_stay_counted_when_another_store_is_configured(tmp_path: Path) -> None:
    key = key_edits.create(tmp_path / "keys.yaml", "alice", Grant(limits=Limits(requests_per_minute=9)))
    url = f"redis://127.0.0.1:{free_port()}"
    sections: dict[str, Any] = {
        "auth": {"keys_file": str(tmp_path / "keys.yaml")},
        "quotas": {"store": {"url": f"{url}/0", "on_failure": "open"}},
    }
    body, headers = {"model": "gemma", "messages": MESSAGES}, {"authorization": f"Bearer {key}"}
    async with (
        started(tmp_path, **sections) as process,
        httpx.AsyncClient(headers=headers) as client,
        asyncio.timeout(9),
    ):
        await client.post(f"{process.url}/v1/chat/completions", json=body)
        config = tmp_path / "gateway.yaml"
        config.write_text(config.read_text().replace(f"{url}/0", f"{url}/1"))
        while (await client.get(f"{process.admin_url}/readyz")).json()["quota_store"] != "ok":
            await asyncio.sleep(0.05)
        before = (await client.get(f"{process.admin_url}/metrics")).text
        await client.post(f"{process.url}/v1/chat/completions", json=body)
        after = (await client.get(f"{process.admin_url}/metrics")).text

    assert failures(after) > failures(before) >= 1


def failures(metrics: str) -> float:
    """Of quota stores, as the metrics tell."""
    (line,) = (line for line in metrics.splitlines() if line.startswith("gemma_gateway_quota_store_failures_total"))
    return float(line.split()[1])


async def test_readiness_follows_the_engine(process: Process) -> None:
    process.engine.healthy = False

    response = await until(f"{process.admin_url}/readyz", 503)

    assert response.json()["status"] == "no engine is ready"
    assert response.json()["engines"] == {"default": "not ready"}
    process.engine.healthy = True
    await until(f"{process.admin_url}/readyz", 200)


async def test_sigterm_lets_a_running_stream_finish_and_takes_no_new_request(process: Process) -> None:
    go_on = asyncio.Event()
    process.engine.behaviour = slow_stream(go_on)
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream("POST", f"{process.url}/v1/chat/completions", json=STREAM) as response,
    ):
        lines = response.aiter_lines()
        first = await anext(lines)

        process.child.send_signal(signal.SIGTERM)
        draining = await until(f"{process.admin_url}/readyz", 503)
        await asyncio.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().post(f"{process.url}/v1/chat/completions", json=STREAM)
        go_on.set()
        rest = [line async for line in lines if line]

    assert "before" in first
    assert draining.json()["status"] == "draining"
    assert ["after" in rest[0], rest[1]] == [True, "data: [DONE]"]
    assert await asyncio.wait_for(process.child.wait(), 10) == 0


async def test_log_is_one_json_object_a_line_with_the_request_id_and_no_key(process: Process) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{process.url}/v1/chat/completions",
            json={"model": "gemma", "messages": MESSAGES},
            headers={"authorization": "Bearer sk-secret"},
        )
    process.child.send_signal(signal.SIGTERM)
    _, log = await process.child.communicate()

    assert "Traceback" not in log.decode(), log.decode()
    lines = [json.loads(line) for line in log.decode().splitlines()]
    access = [line for line in lines if line["logger"] == "gateway.access"]
    assert [line["request_id"] for line in access] == [answer.headers["x-request-id"]]
    assert access[0]["prompt_tokens"] == 7
    assert "sk-secret" not in log.decode()


async def test_no_key_or_token_is_in_the_log_the_metrics_or_the_usage_log(tmp_path: Path) -> None:
    keys, usage = tmp_path / "keys.yaml", tmp_path / "usage.jsonl"
    good = key_edits.create(keys, "alice")
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkIn0.c2VjcmV0LXNpZ25hdHVyZQ"
    presented = [good, good + "x", "sk-gemma-00-neverSeenBefore9", "hunter2-hunter2-hunter2", token]
    async with started(tmp_path, auth={"keys_file": str(keys)}, usage={"file": str(usage)}) as process:
        async with httpx.AsyncClient() as client:
            for secret in presented:
                for header in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
                    url = f"{process.url}/v1/chat/completions"
                    await client.post(url, json={"model": "gemma", "messages": MESSAGES}, headers=header)
                    await client.get(f"{process.url}/v1/models", headers=header)
            seen = [(await client.get(f"{process.admin_url}{path}")).text for path in ("/metrics", "/readyz")]
        process.child.send_signal(signal.SIGTERM)
        _, log = await process.child.communicate()

    seen += [log.decode(), usage.read_text()]
    secrets = [secret.split("-", 3)[-1] for secret in presented[:4]] + token.split(".")
    assert [(secret, where) for secret in secrets for where in seen if secret in where] == []
    assert len(usage.read_text().splitlines()) == 10
    assert sum("invalid_api_key" in line for line in log.decode().splitlines()) >= 8


async def test_sighup_has_everything_read_anew(tmp_path: Path) -> None:
    reloaded = 'gemma_gateway_reloads_total{outcome="ok",what="configuration"} 1.0'
    async with started(tmp_path) as process:
        process.child.send_signal(signal.SIGHUP)
        async with httpx.AsyncClient() as client, asyncio.timeout(5):
            while reloaded not in (text := (await client.get(f"{process.admin_url}/metrics")).text):
                await asyncio.sleep(0.05)

    assert reloaded in text
