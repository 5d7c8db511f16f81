"""Counts bytes that are held at once, and refuses more than may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from gateway.errors import InvalidRequestError, MediaTooLargeError, OverloadedError


class Ledger:
    """The bytes of all holders together, at most `limit`, which may be changed; `gauge` shows them.

    `setting` is the limit's name and `what` is counted, for messages. `retry_after` is in seconds; None leaves it to
    whoever answers. `too_large` is the error for what could never be held, however long one waits.
    """

    def __init__(
        self,
        limit: int,
        gauge: Gauge,
        setting: str,
        what: str,
        retry_after: float | None = 2,
        too_large: type[InvalidRequestError] = MediaTooLargeError,
    ) -> None:
        self.limit = limit
        self._setting = setting
        self._what = what
        self._retry_after = retry_after
        self._too_large = too_large
        self._total = 0
        gauge.set_function(lambda: self._total)

    @contextmanager
    def hold(self, count: int = 0) -> Iterator[Held]:
        """Accounts for `count` bytes, and for what is added to them, until the block ends.

        Raises OverloadedError where that is over the limit, and `too_large` where it is so alone.
        """
        held = Held(self)
        try:
            held.add(count)
            yield held
        finally:
            self.change(-held.count)

    def check_alone(self, count: int) -> None:
        """Raises `too_large` where no waiting makes room for `count` bytes."""
        if count > self.limit:
            raise self._too_large(f"it takes more than {self.limit} bytes ({self._setting})")

    def take(self, count: int) -> bool:
        """Adds `count` bytes if there is room for them; whether there was."""
        if self._total + count > self.limit:
            return False
        self._total += count
        return True

    def change(self, count: int) -> None:
        """Adds `count` bytes, or takes them off where it is negative.

        Raises OverloadedError over the limit, and `too_large` where these bytes alone are over it; then adds nothing.
        """
        if count > 0 and self._total + count > self.limit:
            self.check_alone(count)
            raise OverloadedError(
                f"more than {self.limit} bytes of {self._what} are in flight ({self._setting})",
                retry_after=self._retry_after,
            )
        self._total += count


class Held:
    """The bytes of one holder."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.count = 0

    def add(self, count: int) -> None:
        """Accounts for `count` bytes more.

        Raises OverloadedError as `hold` does, and `too_large` where this holder alone would be over the limit.
        """
        self._ledger.check_alone(self.count + count)
        self._ledger.change(count)
        self.count += count
