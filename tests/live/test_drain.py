"""How a gateway process ends: what is new is still answered for a while, what runs finishes or is told of the end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.conftest import MESSAGES
from tests.live.test_process import STREAM, Process, slow_stream, started, until

CHAT = {"model": "gemma", "messages": MESSAGES}


@asynccontextmanager
async def ending(folder: Path, patch: pytest.MonkeyPatch, **server: float) -> AsyncIterator[Process]:
    """A gateway process with these settings of `server`."""
    for name, value in server.items():
        patch.setenv(f"GEMMA_GATEWAY_SERVER__{name.upper()}", str(value))
    async with started(folder) as process:
        yield process


async def idle_connection(process: Process) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has had an answer and could have another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(process.url.rsplit(":", 1)[1]))
    await exchange(reader, writer)
    return reader, writer


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Head of the answer to one request."""
    body = json.dumps(CHAT).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return head.lower()


async def test_new_requests_are_answered_for_the_delay_and_told_to_go_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ending(tmp_path, monkeypatch, drain_delay_seconds=1.5) as process, httpx.AsyncClient() as client:
        kept, idle = await idle_connection(process), await idle_connection(process)
        normal, go_on = process.engine.behaviour, asyncio.Event()
        process.engine.behaviour = slow_stream(go_on)
        running = asyncio.create_task(client.post(f"{process.url}/v1/chat/completions", json=STREAM))
        async with asyncio.timeout(5):
            while not process.engine.running:
                await asyncio.sleep(0.01)
        process.engine.behaviour = normal

        process.child.send_signal(signal.SIGTERM)
        draining = await until(f"{process.admin_url}/readyz", 503)
        new = await client.post(f"{process.url}/v1/chat/completions", json=CHAT)
        head = await exchange(*kept)
        ends = [await asyncio.wait_for(reader.read(), 5) for reader, _ in (kept, idle)]
        ended_early = process.child.returncode is not None or running.done()
        go_on.set()
        answer = await running
        code = await asyncio.wait_for(process.child.wait(), 10)

    assert draining.json()["status"] == "draining"
    assert (new.status_code, new.headers.get("connection")) == (200, "close")
    assert b"\r\nconnection: close\r\n" in head
    assert (ends, ended_early) == ([b"", b""], False)
    assert (answer.text.endswith("data: [DONE]\n\n"), code) == (True, 0)
    for _, writer in (kept, idle):
        writer.close()


@pytest.mark.parametrize("signals", [1, 2], ids=["when the drain time is over", "when a second signal comes"])
async def test_stream_that_cannot_finish_ends_in_an_error_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    drain_seconds = 1 if signals == 1 else 60
    async with (
        ending(tmp_path, monkeypatch, drain_seconds=drain_seconds) as process,
        httpx.AsyncClient(timeout=20) as client,
    ):
        process.engine.behaviour = slow_stream(asyncio.Event())
        async with client.stream("POST", f"{process.url}/v1/chat/completions", json=STREAM) as response:
            lines = response.aiter_lines()
            await anext(lines)
            for _ in range(signals):
                process.child.send_signal(signal.SIGTERM)
                await until_draining(process)
            *_, last = [line async for line in lines if line]
        code = await asyncio.wait_for(process.child.wait(), 10)

    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert code == 0


async def until_draining(process: Process) -> None:
    """Or until it has ended."""
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        while process.child.returncode is None:
            try:
                if (await client.get(f"{process.admin_url}/readyz")).status_code == 503:
                    return
            except httpx.TransportError:
                return
            await asyncio.sleep(0.02)
