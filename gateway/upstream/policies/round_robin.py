"""Each replica in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from gateway.upstream.policies.choice import Choice, Hints, R


class RoundRobin:
    """Counts the requests."""

    def __init__(self) -> None:
        self._turn = count()

    def __call__(self, replicas: Sequence[R], _hints: Hints, _load_bound: float, /) -> Choice[R]:
        return Choice(replicas[next(self._turn) % len(replicas)], f"next of {len(replicas)}")
