"""Keeps requests waiting until a replica can take them: a bounded number, for a bounded time, in order."""

from __future__ import annotations

import asyncio

from gateway.errors import EngineUnavailableError
from gateway.settings.engines import HoldSettings


class Hold:
    """Who waits for one pool."""

    def __init__(self, settings: HoldSettings) -> None:
        self._settings = settings
        self._waiting: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def seconds(self) -> float:
        """How long a request may wait in all."""
        return self._settings.seconds

    async def wait(self, until: float) -> None:
        """Waits to be released, until the loop's clock says `until` at most.

        Raises EngineUnavailableError when that is over, or at once where too many wait. It leaves open when to try
        again: nobody knows how long an engine takes to start, and the edge has a setting for that.
        """
        loop = asyncio.get_running_loop()
        if loop.time() >= until or len(self._waiting) >= self._settings.max_requests:
            raise EngineUnavailableError("The model is not available right now; try again shortly.")
        place = loop.create_future()
        self._waiting[place] = None
        try:
            async with asyncio.timeout_at(until):
                await place
        except TimeoutError:
            raise EngineUnavailableError("The model did not become available in time; try again shortly.") from None
        finally:
            self._waiting.pop(place, None)

    def release(self) -> None:
        """Lets all go, the oldest first."""
        for place in self._waiting:
            if not place.done():
                place.set_result(None)
        self._waiting.clear()
