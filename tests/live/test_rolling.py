"""Every engine and every gateway restarted in turn under live streams: not one of them breaks."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fake_engine import Behaviour, Received, begin, event, send
from tests.live.conftest import Start
from tests.live.replicas import Streams, replicas
from tests.live.test_process import Process, free_port, started, until

pytestmark = pytest.mark.slow

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

#: In which a gateway that stops still answers, in seconds, so that nginx can take it off its list.
DELAY = 1.0


def slow_stream(seconds: float, events: int = 5, spread: float = 0.0) -> Behaviour:
    """Takes its time from event to event; up to `spread`, a fraction, more or less of it, to be out of step."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        pause = seconds * random.uniform(1 - spread, 1 + spread) / events
        await begin(writer)
        for _number in range(events):
            await send(writer, event("x"))
            await asyncio.sleep(pause)
        await send(writer, b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


async def test_three_engines_restarted_in_turn_under_300_streams_break_none(start: Start) -> None:
    # Probed seldom, and each engine is busy when its turn comes: requests meet its refusal before a probe does.
    async with replicas(start, 3, probe_seconds=1.0, hold={"seconds": 10}, routing={"policy": "affinity"}) as pool:
        for fake in pool.fakes:
            fake.behaviour = slow_stream(1.2, spread=0.5)
        streams = Streams(pool.gateway.url, 300)

        for fake in pool.fakes:
            await pool.gateway.until(lambda: min(fake.running for fake in pool.fakes) > 60, 15)
            await fake.restart()
            await pool.gateway.until(lambda: pool.engine.usable == 3, 15)
        await streams.stop()

        assert streams.broken == []
        assert sum(fake.refused for fake in pool.fakes) > 0
        assert streams.whole >= 600
        await pool.clean()


@dataclass
class Balancer:
    """An nginx that spreads requests over the gateways that it is told of, and tries each once, as a Service does."""

    folder: Path
    port: int
    gateways: list[str] = field(default_factory=list)

    def write(self) -> None:
        servers = "".join(f"server {gateway.removeprefix('http://')} max_fails=0; " for gateway in self.gateways)
        (self.folder / "nginx.conf").write_text(
            f"""daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
              fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
              upstream gateways {{ {servers} keepalive 64; }}
              server {{ listen 127.0.0.1:{self.port} backlog=1024; location / {{
                proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection "";
                proxy_buffering off; proxy_next_upstream off; proxy_read_timeout 60s;
              }} }}
            }}"""
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spread_over(self, gateways: Sequence[Process]) -> None:
        """From now on, requests go to these."""
        self.gateways = [gateway.url for gateway in gateways]
        self.write()
        os.kill(int((self.folder / "nginx.pid").read_text()), signal.SIGHUP)


@asynccontextmanager
async def balancing(folder: Path, gateways: Sequence[Process]) -> AsyncIterator[Balancer]:
    balancer = Balancer(folder, free_port(), [gateway.url for gateway in gateways])
    balancer.write()
    child = await asyncio.create_subprocess_exec(NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"))
    try:
        await until(f"{balancer.url}/v1/models", 200)
        yield balancer
    finally:
        child.send_signal(signal.SIGQUIT)
        await asyncio.wait_for(child.wait(), 20)


@pytest.fixture
def delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateway processes that are started have DELAY."""
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__DRAIN_DELAY_SECONDS", str(DELAY))


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Process]:
    """A process whose engine takes its time."""
    folder.mkdir()
    # Nobody reads its log, and a pipe that is full would stop it.
    async with started(folder, logs={"level": "warning"}) as process:
        process.engine.behaviour = slow_stream(1.2)
        yield process


async def asked(process: Process) -> None:
    """Waits until its engine has got a request."""
    async with asyncio.timeout(15):
        while not process.engine.requests:
            await asyncio.sleep(0.02)


@pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is what stands for a Service here, and is not installed")
async def test_two_gateways_restarted_in_turn_under_live_streams_break_none(tmp_path: Path, delay: None) -> None:
    """Each goes off the list once its /readyz says so, as the endpoints of a Service do, and its successor goes on."""
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(gateway(tmp_path / str(number))) for number in range(2)]
        balancer = await stack.enter_async_context(balancing(tmp_path, gateways))
        streams = Streams(balancer.url, 100)
        await asyncio.sleep(0.5)

        for number in range(2):
            old = gateways.pop(0)
            old.child.terminate()
            await until(f"{old.admin_url}/readyz", 503)
            balancer.spread_over(gateways)
            assert await asyncio.wait_for(old.child.wait(), 20) == 0
            gateways.append(await stack.enter_async_context(gateway(tmp_path / f"new {number}")))
            balancer.spread_over(gateways)
            await asked(gateways[-1])
        await streams.stop()

        assert streams.broken == []
        assert streams.whole >= 300
