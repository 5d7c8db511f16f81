"""The load of a soak: requests at a constant rate, some of whose clients leave at a moment by chance."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import httpx

_LONGEST_STAY = 1.5


class Load:
    """Sends the bodies in turn, and counts what becomes of them."""

    def __init__(self, client: httpx.AsyncClient, bodies: Sequence[bytes], abort_share: float, seed: int) -> None:
        self._client = client
        self._bodies = bodies
        self._abort_share = abort_share
        self._random = random.Random(seed)  # noqa: S311  (has to be the same each time)
        self.counts: Counter[str] = Counter(sent=0, complete=0, aborted=0, failed=0)
        self.failures: Counter[str] = Counter()

    async def run(self, seconds: float, rate: float) -> None:
        """Sends at `rate` per second (Poisson), and returns when the last request has ended."""
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            while (due := due + self._random.expovariate(rate)) < end:
                await asyncio.sleep(due - loop.time())
                group.create_task(self._one())

    async def _one(self) -> None:
        body = self._bodies[self.counts["sent"] % len(self._bodies)]
        self.counts["sent"] += 1
        leaves = self._random.random() < self._abort_share
        try:
            async with asyncio.timeout(self._random.uniform(0, _LONGEST_STAY) if leaves else None):
                failure = await self._exchange(body)
        except TimeoutError:
            self.counts["aborted"] += 1
            return
        except httpx.HTTPError as error:
            failure = type(error).__name__
        self.counts["failed" if failure else "complete"] += 1
        if failure:
            self.failures[failure] += 1

    async def _exchange(self, body: bytes) -> str | None:
        """Reads a whole answer; what was wrong with it."""
        async with AsyncExitStack() as stack:
            sending = self._client.stream("POST", "/v1/chat/completions", content=body)
            response = await stack.enter_async_context(sending)
            end = b""
            async for chunk in response.aiter_bytes():
                end = (end + chunk)[-64:]
        if response.status_code != 200:
            return str(response.status_code)
        streamed = response.headers["content-type"].startswith("text/event-stream")
        return "stream without an end" if streamed and not end.rstrip().endswith(b"[DONE]") else None
