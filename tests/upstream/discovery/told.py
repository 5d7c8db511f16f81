"""What a discovery has told while a test runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from gateway.upstream.discovery import Discovery


class Told:
    """Each list of replicas in the order in which it was told."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []
        self._changed = asyncio.Event()

    def __call__(self, urls: Sequence[str]) -> None:
        self.lists.append(list(urls))
        self._changed.set()

    async def until(self, *urls: str) -> None:
        """Waits until exactly these were told last."""
        async with asyncio.timeout(5):
            while not self.lists or self.lists[-1] != list(urls):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(discovery: Discovery) -> AsyncIterator[Told]:
    """Runs it for the time of the block. It must not end by itself."""
    told = Told()
    task = asyncio.ensure_future(discovery.run(told))
    try:
        yield told
    finally:
        assert not task.done(), task
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: object) -> None:
    """Waits until the callable `condition` holds."""
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
