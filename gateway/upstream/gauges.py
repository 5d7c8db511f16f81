"""Reads how much a replica has to do from vLLM's own gauges, so that what other gateways send it counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from gateway.errors import GatewayError
from gateway.upstream.replica import Replica

RUNNING = b"vllm:num_requests_running"
WAITING = b"vllm:num_requests_waiting"
KV_CACHE = b"vllm:kv_cache_usage_perc"

#: These three alone: vLLM answers so under /metrics/ (the page of prometheus_client's ASGI application).
FILTERED = "/metrics/?" + "&".join(f"name%5B%5D={quote(name)}" for name in (RUNNING, WAITING, KV_CACHE))
#: The whole page, over 100 KB, for engines that cannot filter.
WHOLE = "/metrics"

#: Longest wait for a page, in seconds.
ANSWER_SECONDS = 5.0
#: Between two tries with an engine that has no such gauges, in seconds.
RETRY_SECONDS = 30.0
#: Readings that may fail before the last one is forgotten.
FORGET_AFTER = 5
#: Share of the KV cache from which on an engine has to preempt what runs to take on more.
FULL = 0.95


@dataclass(frozen=True, slots=True)
class Gauges:
    """A reading: requests running and waiting, all data-parallel ranks together; KV cache in use, 0 to 1, of the
    fullest.
    """

    running: float
    waiting: float
    kv_usage: float

    def elsewhere(self, own: int) -> float:
        """The load beyond our own requests, of which there were `own`.

        What others send counts as it is. Each waiting request counts once more: a newcomer waits behind it. A full KV
        cache counts as a quarter of all requests more, one at least: just what takes a replica over the usual bound.
        """
        total = self.running + self.waiting
        penalty = self.waiting + (max(1.0, total / 4) if self.kv_usage > FULL else 0.0)
        return max(0.0, total - own) + penalty


def parse(page: bytes) -> Gauges | None:
    """The gauges in a page of Prometheus' text format; None where they are not in it."""
    running = list(_values(page, RUNNING))
    waiting = list(_values(page, WAITING))
    if not running or not waiting:
        return None
    return Gauges(sum(running), sum(waiting), max(_values(page, KV_CACHE), default=0.0))


def _values(page: bytes, name: bytes) -> Iterator[float]:
    """The samples of a gauge. Searches for its name instead of reading the page line by line."""
    at = page.find(name)
    while at >= 0:
        end = page.find(b"\n", at)
        end = len(page) if end < 0 else end
        after = at + len(name)
        if page[after : after + 1] in (b"{", b" ") and (at == 0 or page[at - 1] == 0x0A):
            try:
                yield float(page[after:end].rpartition(b"}")[2].split()[0])
            except (ValueError, IndexError):
                return
        at = page.find(name, end)


async def read(replica: Replica, path: str) -> Gauges | None:
    """One reading; None where it fails or is not there."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, page = await replica.get(path)
    except (TimeoutError, GatewayError):
        return None
    return parse(page) if status == 200 else None


class Reading:
    """The readings of one replica, each `seconds`, as long as `wanted`."""

    def __init__(self, replica: Replica, seconds: float, wanted: Callable[[], bool]) -> None:
        self._replica = replica
        self._seconds = seconds
        self._wanted = wanted
        self._path = FILTERED
        self._missed = 0

    async def run(self) -> None:
        """Reads until cancelled."""
        # Not all replicas at once.
        await asyncio.sleep(self._seconds * random.random())  # noqa: S311 - no secret
        while True:
            if self._wanted() and self._replica.healthy:
                await self.once()
            else:
                self._replica.elsewhere = 0.0
            lacking = self._missed >= FORGET_AFTER
            await asyncio.sleep(max(RETRY_SECONDS, self._seconds) if lacking else self._seconds)

    async def once(self) -> None:
        """One reading. An engine without gauges is no fault: then our own requests are what counts."""
        before = self._replica.in_flight
        found = await read(self._replica, self._path)
        if found is None:
            self._missed += 1
            self._path = WHOLE if self._path is FILTERED else FILTERED
            if self._missed >= FORGET_AFTER:
                self._replica.elsewhere = 0.0
            return
        self._missed = 0
        # Which of our own are in the reading cannot be told, so that too many are taken off rather than too few.
        self._replica.elsewhere = found.elsewhere(max(before, self._replica.in_flight))
