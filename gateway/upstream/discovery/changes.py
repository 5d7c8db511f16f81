"""What is known of an engine's replicas: tells of changes, and keeps what is known while nothing can be found out."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gateway.upstream.discovery import OnChange

logger = logging.getLogger(__name__)


class Replicas:
    """The replicas that `source` has named last; None until it has named any, or said that there are none.

    `source` is how the log calls it. `on_change` gets all URLs, sorted, at first and whenever they differ.
    """

    def __init__(self, source: str, on_change: OnChange) -> None:
        self.urls: tuple[str, ...] | None = None
        self._source = source
        self._on_change = on_change
        self._fault: str | None = None

    def found(self, urls: Iterable[str]) -> None:
        """The source named these, and no others."""
        before, now = self.urls, tuple(sorted(set(urls)))
        if now == before:
            return
        self._log(set(before or ()), set(now))
        self._on_change(now)
        self.urls = now

    def failed(self, fault: str) -> None:
        """The source could not be asked, or not for everything. Said once, until it ends."""
        if self._fault is None:
            logger.warning("cannot find the replicas of %s, those known stay: %s", self._source, fault)
        self._fault = fault

    def healthy(self) -> None:
        """The source answered in full."""
        if self._fault is not None:
            logger.info("the replicas of %s can be found again", self._source)
        self._fault = None

    def _log(self, before: set[str], now: set[str]) -> None:
        added, removed = sorted(now - before), sorted(before - now)
        fields = {"added": " ".join(added), "removed": " ".join(removed)}
        told = {key: value for key, value in fields.items() if value}
        logger.info("replicas of %s: %d", self._source, len(now), extra={"fields": told})


def backoff(failures: int, first: float, longest: float) -> float:
    """Seconds until the next attempt after so many failures in a row: `first` after one, doubled with each further."""
    # The exponent is bounded because a float is.
    return min(longest, first * 2.0 ** min(failures - 1, 32))


def url(address: str, port: int) -> str:
    """`http://address:port`, IPv6 in brackets."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
