"""A gateway before several replicas, and what of both must be nought when all requests have ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.upstream.pool import Engine
from gateway.upstream.replica import Replica
from tests import fake_engine
from tests.fake_engine import FakeEngine
from tests.live.conftest import MESSAGES, Running, Start

DONE = "data: [DONE]\n\n"

#: Each in turn, so that tests can foresee who is asked.
SETTINGS: dict[str, Any] = {"routing": {"policy": "round_robin"}, "probe_seconds": 60, "hold": {"seconds": 0.2}}


@dataclass(frozen=True)
class Replicas:
    """The gateway, and the fake engines behind it in the order in which they are asked."""

    gateway: Running
    fakes: list[FakeEngine]

    @property
    def engine(self) -> Engine:
        return self.gateway.gateway.engines["default"]

    @property
    def calls(self) -> list[int]:
        """Requests that each engine got."""
        return [len(fake.requests) for fake in self.fakes]

    def replica(self, number: int) -> Replica:
        return self.engine.replicas[self.fakes[number].url]

    async def die(self, number: int) -> None:
        """Kills an engine, and waits until the gateway has noticed what becomes of the connections that it keeps."""
        self.fakes[number].die()
        idle = self.replica(number)._idle
        await self.gateway.until(lambda: all(connection.closed for connection in idle))

    async def clean(self, seconds: float = 10) -> None:
        """That nothing is left: no request in the gateway, its engine or a replica, and no connection to an engine but
        those that are kept for reuse.
        """
        gateway, engine, fakes = self.gateway, self.engine, self.fakes
        await gateway.until(lambda: not gateway.in_flight and not any(fake.running for fake in fakes), seconds)
        replicas = engine.replicas.values()
        assert [replica.in_flight for replica in replicas] == [0] * len(fakes)
        assert (engine.held, gateway.gateway.admission.waiting) == (0, 0)
        names = ("in_flight", "waiting", "engine_in_flight", "engine_held", "body_bytes_in_flight")
        assert {name: gateway.metric(f"gemma_gateway_{name}") for name in names} == dict.fromkeys(names, 0)
        await gateway.until(lambda: sum(fake.open_connections for fake in fakes) == self.kept, seconds)

    @property
    def kept(self) -> int:
        """Connections to engines that are kept for reuse, but for one that a probe is using."""
        idle = [connection for replica in self.engine.replicas.values() for connection in replica._idle]
        return sum(not connection.closed for connection in idle)


@asynccontextmanager
async def replicas(start: Start, count: int, *, sections: Any = None, **engine: Any) -> AsyncIterator[Replicas]:
    """A gateway before `count` fake engines, all known to be ready. `engine` goes over SETTINGS."""
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(fake_engine.running()) for _ in range(count)]
        fakes.sort(key=lambda fake: fake.url)
        default = {"url": None, "urls": [fake.url for fake in fakes], **SETTINGS, **engine}
        made = Replicas(await start(engines={"default": default}, **(sections or {})), fakes)
        await made.gateway.until(lambda: made.engine.usable == count)
        yield made


def error_code(answer: httpx.Response) -> str | None:
    """The code of the error that the answer is, or ends in; None where it is whole. Each event must be whole."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        document = answer.json()
    elif answer.text.endswith(DONE):
        document, answer_text = {}, answer.text.removesuffix(DONE)
        assert [json.loads(event.removeprefix("data: ")) for event in answer_text.split("\n\n")[:-1]]
    else:
        documents = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n")[:-1]]
        document = documents[-1]
        assert "error" in document, answer.text
    code = document.get("error", {}).get("code")
    assert code is None or isinstance(code, str)
    return code


class Streams:
    """Clients that ask for one stream after the other, each on a connection of its own, until they are stopped."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._stopped = False
        self.open = 0
        self.whole = 0
        self.broken: list[bytes] = []
        self._tasks = [asyncio.create_task(self._ask(number / clients)) for number in range(clients)]

    async def stop(self) -> None:
        """Waits for the ends of the streams that are open, and begins no more."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, late: float) -> None:
        await asyncio.sleep(late)
        while not self._stopped:
            self.open += 1
            try:
                answer = await stream(self._url)
            except OSError as fault:
                answer = repr(fault).encode()
            self.open -= 1
            if answer.startswith(b"HTTP/1.1 200 ") and b"data: [DONE]" in answer and b'"error"' not in answer:
                self.whole += 1
            else:
                self.broken.append(answer)


def request(key: str = "", **fields: Any) -> bytes:
    """A request for a stream as bytes, on a connection that is closed after it."""
    body = json.dumps({"model": "gemma", "messages": MESSAGES, "stream": True, **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def stream(url: str) -> bytes:
    """All that comes. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        writer.write(request())
        return await reader.read()
    finally:
        writer.close()
