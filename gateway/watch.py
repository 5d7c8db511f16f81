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

#: Looks until what was refused is tried again: the reason may lie in another file than those that are looked at.
_LOOKS_TO_RETRY = 10


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
    _looks: int = 0
    _last: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.fingerprint()

    async def look(self) -> None:
        """Reads anew if something has changed since the last look, and now and then what was refused."""
        now = await asyncio.to_thread(self.fingerprint)
        self._looks += 1
        if now != self._last:
            self._last = now
            await self.read()
        elif self.fault is not None and self._looks % _LOOKS_TO_RETRY == 0:
            await self.read(before=self.fault)

    async def read(self, before: str | None = None) -> None:
        """Reads anew in any case. A fault that is the one of `before` is not told again."""
        try:
            await self.reload()
        except ConfigurationError as fault:
            self._failed(str(fault), before, None)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the gateway goes on with what it has, and says so
            self._failed(f"{type(fault).__name__}: {fault}", before, fault)
        else:
            self.fault = None
            logger.info("new %s taken over", self.name)
            self.counter.labels(self.name, "ok").inc()

    def _failed(self, fault: str, before: str | None, unexpected: Exception | None) -> None:
        self.fault = fault
        if fault != before:
            logger.error("new %s not taken over: %s", self.name, fault, exc_info=unexpected)
            self.counter.labels(self.name, "error").inc()


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
