"""Counts bytes that are held at once, and refuses more than may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from gateway.errors import MediaTooLargeError, OverloadedError


class Ledger:
    """The bytes of all holders together, at most `limit`; `gauge` shows them. `retry_after` is in seconds."""

    def __init__(self, limit: int, gauge: Gauge, retry_after: float = 2) -> None:
        self._limit = limit
        self._gauge = gauge
        self._retry_after = retry_after
        self._total = 0

    @contextmanager
    def hold(self, count: int = 0) -> Iterator[Held]:
        """Accounts for `count` bytes, and for what is added to them, until the block ends.

        Raises OverloadedError where that is over the limit.
        """
        held = Held(self)
        try:
            held.add(count)
            yield held
        finally:
            self.change(-held.count)

    def check_alone(self, count: int) -> None:
        """Raises MediaTooLargeError where no waiting makes room for `count` bytes."""
        if count > self._limit:
            raise MediaTooLargeError(f"it takes more than {self._limit} bytes (media.max_bytes_in_flight)")

    def change(self, count: int) -> None:
        """Adds `count` bytes, or takes them off where it is negative.

        Raises OverloadedError over the limit, and then adds nothing.
        """
        if count > 0 and self._total + count > self._limit:
            raise OverloadedError(
                f"more than {self._limit} bytes of media are in flight (media.max_bytes_in_flight)",
                retry_after=self._retry_after,
            )
        self._total += count
        self._gauge.set(self._total)


class Held:
    """The bytes of one holder."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.count = 0

    def add(self, count: int) -> None:
        """Accounts for `count` bytes more.

        Raises OverloadedError as `hold` does, and MediaTooLargeError where this holder alone would be over the limit.
        """
        self._ledger.check_alone(self.count + count)
        self._ledger.change(count)
        self.count += count
