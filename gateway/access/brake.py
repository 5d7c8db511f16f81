"""Slows down whoever sends many wrong keys or tokens.

Secrets of 256 bits need no protection from guessing. What the brake spares is the work of checking, logs and metrics.
So it never touches a good key or token, however many wrong ones come from the same address: locking out the neighbours
behind one router would do more harm than the guessing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from cachetools import TTLCache

from gateway.access.windows import SLOTS, Window
from gateway.errors import AuthenticationError, TooManyFailuresError

_WINDOW_SECONDS = 60
_MICROSECONDS = 1_000_000

#: Addresses that are remembered; when there are more, the one that has been quiet for longest is forgotten.
_MOST_SOURCES = 10_000

#: Seconds that an answer is held back.
_DELAY = 1.0

#: Answers held back at once. Each holds a connection, so that more would turn the brake against ourselves.
_MOST_HELD = 64


class Brake:
    """Counts the failures of each source in the last minute. `clock` is in seconds and never goes back."""

    def __init__(self, limit: int, *, delay: float = _DELAY, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._delay = delay
        self._clock = clock
        self._held = 0
        self._windows: TTLCache[str, Window] = TTLCache(_MOST_SOURCES, ttl=_WINDOW_SECONDS + 1, timer=clock)

    @property
    def held(self) -> int:
        """Answers that are being held back now."""
        return self._held

    async def answer(self, source: str, error: AuthenticationError) -> AuthenticationError | TooManyFailuresError:
        """Counts a failure of that source; what to raise: the error itself or, after a while, that there are too many.

        `limit` failures a minute are answered as they are; 0: all of them.
        """
        if not self._limit:
            return error
        window = self._windows.get(source) or Window(_WINDOW_SECONDS * _MICROSECONDS // SLOTS)
        # Set anew each time, so that it is kept for as long as something in it counts.
        self._windows[source] = window
        before = window.used(self._now())
        window.charge(self._now(), 1)
        if before < self._limit:
            return error
        await self._hold()
        return self._too_many(error, window)

    async def _hold(self) -> None:
        if self._held >= _MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(self._delay)
        finally:
            self._held -= 1

    def _too_many(self, error: AuthenticationError, window: Window) -> TooManyFailuresError:
        """`retry_after` is when one more failure is answered as such again, if none comes until then."""
        seconds = max(1, math.ceil(window.wait(self._now(), 1, self._limit) / _MICROSECONDS))
        return TooManyFailuresError(
            f"{error.message} More than {self._limit} wrong keys or tokens came from your address within a minute; "
            f"answers to wrong ones are held back for the next {seconds} s. A good one works at any time.",
            retry_after=seconds,
        )

    def _now(self) -> int:
        return int(self._clock() * _MICROSECONDS)
