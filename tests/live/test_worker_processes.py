"""Several gateways on one machine can share an address."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx

from tests.live.conftest import MESSAGES
from tests.live.test_process import free_port, started


async def test_processes_on_one_port_share_its_connections_and_one_can_leave(tmp_path: Path) -> None:
    port = free_port()
    servers = [{"port": port, "admin_port": free_port(), "reuse_port": True, "drain_seconds": 5} for _ in range(2)]
    folders = [tmp_path / str(number) for number in range(2)]
    for folder in folders:
        folder.mkdir()

    async def ask(times: int) -> list[int]:
        statuses = []
        for _ in range(times):
            # A connection of its own for each: those are what is dealt out.
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                reply = await client.post("/v1/chat/completions", json={"model": "gemma", "messages": MESSAGES})
                statuses.append(reply.status_code)
        return statuses

    async with (
        started(folders[0], server=servers[0]) as one,
        started(folders[1], server=servers[1]) as other,
    ):
        assert await ask(40) == [200] * 40
        assert len(one.engine.requests) + len(other.engine.requests) == 40
        assert one.engine.requests and other.engine.requests

        one.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await one.child.wait() == 0
        assert await ask(10) == [200] * 10
