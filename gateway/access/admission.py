"""How many requests are worked on at once: a true cap on requests in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from gateway.errors import OverloadedError
from gateway.settings import LimitSettings


class Admission:
    """Counts the requests in flight."""

    def __init__(self, settings: LimitSettings, gauge: Gauge) -> None:
        self._settings = settings
        self._gauge = gauge
        self.in_flight = 0
        gauge.set_function(lambda: self.in_flight)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of `max_in_flight` slots.

        Raises OverloadedError (503 with Retry-After) where all are taken.
        """
        if self.in_flight >= self._settings.max_in_flight:
            raise OverloadedError(
                f"The server is at its limit of {self._settings.max_in_flight} requests at once (limits.max_in_flight);"
                " try again shortly.",
                retry_after=self._settings.retry_after_seconds,
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
