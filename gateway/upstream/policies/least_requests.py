"""The replica with the fewest requests in flight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from gateway.upstream.policies.choice import Choice, Hints, R


class LeastRequests:
    """Among equals each gets its turn, so that an idle pool does not send everything to its first replica."""

    def __init__(self) -> None:
        self._turn = count()

    def __call__(self, replicas: Sequence[R], _hints: Hints, _load_bound: float, /) -> Choice[R]:
        loads = [replica.load for replica in replicas]
        least = min(loads)
        equal = [at for at, load in enumerate(loads) if load == least]
        return Choice(replicas[equal[next(self._turn) % len(equal)]], f"least loaded of {len(loads)}")
