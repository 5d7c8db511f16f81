"""Over how many replicas requests that begin alike are spread: by their share of all requests, lately."""

from __future__ import annotations

from collections.abc import Sequence

#: Replicas that a beginning gets for each one that its requests would fill. It is also about how many system prompts
#: each replica has to keep in its cache: fewer make the loads uneven, more push conversations out of the caches.
#: docs/routing.md has the figures.
SPREAD = 32

#: Requests after which what was counted weighs half.
_HALVED_AFTER = 4096

#: Requests of nobody that are counted beforehand, so that the very first ones are not the whole traffic.
_BEFOREHAND = 256


class Popularity:
    """Counts requests by their beginnings, halved now and then, so that it follows the day and forgets what is gone."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._widths: dict[int, int] = {}
        self._total = 0

    def widths(self, beginnings: Sequence[int], replicas: int) -> list[int]:
        """Counts one request; how many replicas each of its beginnings gets, from 1 to `replicas`."""
        self._total += 1
        if self._total >= 2 * _HALVED_AFTER:
            self._halve()
        return [self._width(beginning, replicas) for beginning in beginnings]

    def _width(self, beginning: int, replicas: int) -> int:
        """It doubles when the share calls for that, but halves only at a quarter: each change moves conversations."""
        count = self._counts[beginning] = self._counts.get(beginning, 0) + 1
        wanted = SPREAD * replicas * count / (self._total + _BEFOREHAND)
        width = self._widths.get(beginning, 1)
        while width < wanted and width < replicas:
            width *= 2
        while width > 1 and wanted < width / 4:
            width //= 2
        self._widths[beginning] = width
        return min(width, replicas)

    def _halve(self) -> None:
        self._counts = {beginning: count // 2 for beginning, count in self._counts.items() if count > 1}
        self._widths = {beginning: self._widths[beginning] for beginning in self._counts}
        self._total //= 2
