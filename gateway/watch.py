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
    over as a whole, or raises and leaves everything as it was: `fault` tells why until it succeeds. `name` stands in
    the log and in metrics. `counter` has the labels `what` and `outcome`.
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
        self.fault = await self._attempt()
        if self.fault is None:
            logger.info("new %s taken over", self.name)
        self.counter.labels(self.name, "ok" if self.fault is None else "error").inc()

    async def _attempt(self) -> str | None:
        """Why the new state was not taken over; None: it was."""
        try:
            await self.reload()
        except ConfigurationError as fault:
            logger.error("new %s not taken over: %s", self.name, fault)
            return str(fault)
        except Exception as fault:
            # Whatever it is, the gateway goes on with what it has, and says so.
            logger.exception("new %s not taken over", self.name)
            return f"{type(fault).__name__}: {fault}"
        return None


async def watch(watched: list[Watched]) -> None:
    """Looks again and again, until cancelled."""
    while True:
        await asyncio.sleep(_SECONDS)
        for each in watched:
            try:
                await each.look()
            except Exception:
                # The fingerprint: the next look is another chance.
                logger.exception("cannot tell whether there are new %s", each.name)
