"""Notices that files have changed, and has them read anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from prometheus_client import Counter

from gateway.errors import ConfigurationError

logger = logging.getLogger(__name__)

#: Between two looks, in seconds. A file's change is to take effect within two.
_SECONDS = 0.5


@dataclass(slots=True)
class Watched:
    """Something that is read from files.

    `fingerprint` changes with the files, and may read from disks that take their time. `reload` takes the new state
    over as a whole, or raises ConfigurationError and leaves everything as it was: `fault` tells why until it succeeds.
    `counter` has the labels `what` and `outcome`.
    """

    name: str
    fingerprint: Callable[[], Hashable]
    reload: Callable[[], Awaitable[None]]
    counter: Counter
    fault: str | None = None
    _last: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.fingerprint()

    async def look(self) -> None:
        """Reads anew if something has changed since the last look."""
        now = await asyncio.to_thread(self.fingerprint)
        if now != self._last:
            self._last = now
            await self.read()

    async def read(self) -> None:
        """Reads anew in any case."""
        try:
            await self.reload()
        except ConfigurationError as fault:
            self.fault = str(fault)
            logger.error("the %s stay as they were: %s", self.name, fault)
        else:
            self.fault = None
            logger.info("the %s have been read anew", self.name)
        self.counter.labels(self.name, "error" if self.fault else "ok").inc()


async def watch(watched: list[Watched]) -> None:
    """Looks again and again, until cancelled."""
    while True:
        await asyncio.sleep(_SECONDS)
        for each in watched:
            try:
                await each.look()
            except Exception:
                # The gateway goes on with what it has; the next change is another chance.
                logger.exception("cannot read the %s", each.name)
