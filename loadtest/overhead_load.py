"""A load of chat requests on as many connections as wanted, and what is seen of the answers and of the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from loadtest.processes import cpu_seconds, resident_bytes

_END = b"\n\n"
#: Seconds for every connection to hear the beginning of its first answer, and to be opened.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`request` over and over on each connection. Times in seconds.

    `opening`: over which the connections are opened. `settling`: from the last one's first answer to the measurement,
    which takes `seconds`. `events`: what a whole answer has; None for answers that are no streams. `endless`: an answer
    lasts longer than the measurement.
    """

    request: bytes
    connections: int
    seconds: float
    opening: float = 0.0
    settling: float = 0.5
    events: int | None = None
    endless: bool = False


@dataclass(slots=True)
class Tally:
    """What was seen while measuring. Times in seconds.

    `waits`: from a request to the first byte of the answer's body. `gaps`: between pieces of an answer.
    """

    requests: int = 0
    events: int = 0
    errors: int = 0
    cpu: float = 0.0
    grown: int = 0
    waits: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    begun: int = 0
    over: bool = False


class Caller(asyncio.Protocol):
    """One connection: asks again as soon as it has been answered."""

    def __init__(self, plan: Plan, tally: Tally, all_begun: asyncio.Event) -> None:
        self._plan = plan
        self._tally = tally
        self._all_begun = all_begun
        self._first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks."""
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def _ask(self) -> None:
        self._heard = 0.0
        self._events = 0
        self._cut = False
        self._asked = time.perf_counter()
        self.transport.write(self._plan.request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """An error, except at the end."""
        if not self._tally.over:
            self._tally.errors += 1

    def data_received(self, data: bytes) -> None:
        """Reads on."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Anything but 200 is an error."""
        if self._parser.get_status_code() != 200:
            self._tally.errors += 1

    def on_body(self, body: bytes) -> None:
        """Notes when it came, and counts events."""
        now = time.perf_counter()
        if self._heard:
            self._tally.gaps.append(now - self._heard)
        else:
            self._begin(now)
        self._heard = now
        if self._plan.events is not None:
            self._count(body)

    def _begin(self, now: float) -> None:
        self._tally.waits.append(now - self._asked)
        if self._first:
            self._first = False
            self._tally.begun += 1
            if self._tally.begun == self._plan.connections:
                self._all_begun.set()

    def _count(self, body: bytes) -> None:
        count = body.count(_END) + (self._cut and body.startswith(b"\n"))
        self._cut = body.endswith(b"\n") and not body.endswith(_END)
        self._events += count
        self._tally.events += count
        if b'"error"' in body:
            self._tally.errors += 1

    def on_message_complete(self) -> None:
        """Asks again, once the answer was found whole."""
        self._tally.requests += 1
        if self._plan.events is not None and self._events != self._plan.events:
            self._tally.errors += 1
        if not self._tally.over:
            self._parser = httptools.HttpResponseParser(self)
            self._ask()


def measure(plan: Plan, port: int, pid: int | None) -> Tally:
    """Runs the load against a port; CPU time and memory are those of the process `pid`, if any.

    A connection that is not answered at all is an error. Raises OSError where one is refused.
    """
    gc.collect()
    gc.disable()
    try:
        tally: Tally = uvloop.run(_measure(plan, port, pid))
        return tally
    finally:
        gc.enable()


async def _measure(plan: Plan, port: int, pid: int | None) -> Tally:
    tally, all_begun = Tally(), asyncio.Event()
    before = resident_bytes(pid) if pid else 0
    callers = await _open(plan, port, tally, all_begun)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await all_begun.wait()
        tally.errors += plan.connections - tally.begun
        await asyncio.sleep(plan.settling)
        await _watch(plan, pid, tally)
        tally.grown = (resident_bytes(pid) if pid else 0) - before
    finally:
        tally.over = True
        for caller in callers:
            caller.transport.abort()
        await asyncio.sleep(0.05)
    return tally


async def _open(plan: Plan, port: int, tally: Tally, all_begun: asyncio.Event) -> list[Caller]:
    loop = asyncio.get_running_loop()
    started, callers = loop.time(), []
    for number in range(plan.connections):
        due = started + plan.opening * number / plan.connections
        if (early := due - loop.time()) > 0:
            await asyncio.sleep(early)
        _, caller = await loop.create_connection(lambda: Caller(plan, tally, all_begun), "127.0.0.1", port)
        callers.append(caller)
    return callers


async def _watch(plan: Plan, pid: int | None, tally: Tally) -> None:
    """Leaves in the tally what happens from now on; first answers of endless streams have all come before."""
    tally.requests = tally.events = 0
    tally.gaps.clear()
    if not plan.endless:
        tally.waits.clear()
    before = cpu_seconds(pid) if pid else 0.0
    await asyncio.sleep(plan.seconds)
    tally.cpu = (cpu_seconds(pid) if pid else 0.0) - before
    if not tally.requests and not tally.events:
        tally.errors += 1
    # What is done from here on, while all is closed, belongs to no figure.
    tally.over = True
