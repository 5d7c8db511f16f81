"""Pools over fake engines on real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import GatewayError
from gateway.settings import EngineSettings
from gateway.upstream.discovery import Discovery, OnChange
from gateway.upstream.pool import Engine
from gateway.upstream.replica import Replica
from tests import fake_engine
from tests.fake_engine import FakeEngine, Received, abort, begin, compact, event, reply, send

Writer = asyncio.StreamWriter

#: Quick, and in an order that tests can foresee.
SETTINGS: dict[str, Any] = {
    "routing": {"policy": "round_robin"},
    "probe_seconds": 60,
    "connect_seconds": 1,
    "first_byte_seconds": 1,
    "hold": {"seconds": 1},
}


@dataclass
class Pool:
    """A pool, the fake engines behind it, and what was told of them."""

    engine: Engine
    fakes: list[FakeEngine]
    events: Counter[str] = field(default_factory=Counter)
    told: list[bool] = field(default_factory=list)

    def heard(self, _: str, kind: str) -> None:
        """The engine's `on_event`."""
        self.events[kind] += 1

    @property
    def calls(self) -> list[int]:
        """Requests that each engine got."""
        return [len(fake.requests) for fake in self.fakes]

    def replica(self, number: int) -> Replica:
        return self.engine.replicas[self.fakes[number].url]

    async def ask(self, *, stream: bool = False, **arguments: Any) -> tuple[int, bytes]:
        """Status and body of a completion; status 0 and the error's code where there is none."""
        body = compact({"model": "served", "stream": stream})
        try:
            with await self.engine.send(b"POST", "/v1/chat/completions", (body,), **arguments) as answer:
                return answer.status, await answer.read_all()
        except GatewayError as error:
            return 0, (error.code or "").encode()

    async def until(self, condition: Callable[[], bool], seconds: float = 3) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    def pass_time(self, number: int) -> None:
        """Has the time be over for which a replica is ejected or full."""
        replica = self.replica(number)
        now = asyncio.get_running_loop().time()
        replica.ejection.until, replica.busy_until = min(replica.ejection.until, now), min(replica.busy_until, now)
        self.engine._roster.refresh()

    async def kill(self, number: int) -> None:
        """Has an engine die, and the pool's kept connections to it with it."""
        self.fakes[number].die()
        idle = self.replica(number)._idle
        await self.until(lambda: all(connection.closed for connection in idle))

    async def clean(self) -> None:
        """Waits until nothing runs, and no connection is left but those that are kept for reuse."""
        await self.until(lambda: not self.engine.in_flight and not any(fake.running for fake in self.fakes))
        assert [replica.in_flight for replica in self.engine.replicas.values()] == [0] * len(self.engine.replicas)
        kept = sum(replica.idle for replica in self.engine.replicas.values())
        await self.until(lambda: sum(fake.open_connections for fake in self.fakes) == kept)


class Told(Discovery):
    """Replicas that come and go as a test says."""

    def __init__(self) -> None:
        self._lists: asyncio.Queue[Sequence[str]] = asyncio.Queue()

    def tell(self, *fakes: FakeEngine) -> None:
        self._lists.put_nowait(sorted(fake.url for fake in fakes))

    async def run(self, on_change: OnChange) -> None:
        while True:
            on_change(await self._lists.get())


@asynccontextmanager
async def pool(count: int, *, found_by: Discovery | None = None, **sections: Any) -> AsyncIterator[Pool]:
    """A pool of `count` engines that run, each known by then as what it is; `sections` go over SETTINGS."""
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(fake_engine.running()) for _ in range(count)]
        fakes.sort(key=lambda fake: fake.url)
        settings = EngineSettings.model_validate(
            {"urls": [fake.url for fake in fakes] or ["http://127.0.0.1:1"], **SETTINGS, **sections}
        )
        engine = Engine("default", settings, found_by)
        made = Pool(engine, fakes)
        engine.on_event = made.heard
        task = asyncio.create_task(engine.run(lambda changed: made.told.append(changed.ready)))
        try:
            if found_by is None:
                await made.until(lambda: all(replica.healthy is not None for replica in engine.replicas.values()))
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await engine.aclose()


# Behaviours


async def hang(_: Received, writer: Writer) -> None:
    await asyncio.sleep(30)


async def hang_up(_: Received, writer: Writer) -> None:
    abort(writer)


async def garbage(_: Received, writer: Writer) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await writer.drain()


async def hang_up_after_the_head(_: Received, writer: Writer) -> None:
    """As vLLM dies on a stream: its head comes before the first token."""
    await begin(writer)
    await asyncio.sleep(0.01)
    abort(writer)


async def hang_up_after_an_event(_: Received, writer: Writer) -> None:
    await begin(writer)
    await send(writer, event("a"))
    await asyncio.sleep(0.01)
    abort(writer)


def busy(seconds: int | None = None, status: int = 503) -> fake_engine.Behaviour:
    return reply(b'{"error":"busy"}', status, **({} if seconds is None else {"retry_after": str(seconds)}))
