"""A further node of a replica over several: it works for the first one, and serves nobody itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.live.test_process import free_port

pytestmark = [pytest.mark.engine, pytest.mark.extended, pytest.mark.timeout(240)]

#: What vLLM says once it waits for the first node.
WAITING = b"headless multiproc executor"


async def test_a_worker_waits_for_its_leader_and_sigterm_ends_it_with_success(tmp_path: Path) -> None:
    from gateway.demo.model import write_model
    from gateway.settings import Family

    write_model(tmp_path / "gemma", Family.GEMMA3)
    port = free_port()
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "engine", str(tmp_path / "gemma"), "--port", str(port), "--"),
        *("--headless", "--nnodes", "2", "--node-rank", "1", "--tensor-parallel-size", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert worker.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(120):
            async for line in worker.stdout:
                said += line
                if WAITING in line:
                    break
        assert WAITING in said, said.decode()
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", port)
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            rest = await worker.stdout.read()
        assert await worker.wait() == 0, (said + rest).decode()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
