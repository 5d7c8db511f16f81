"""All requests of a session on one replica, unless that is too loaded; without a session by affinity."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.upstream.policies.affinity import Affinity
from gateway.upstream.policies.bounded import first_within
from gateway.upstream.policies.choice import Choice, Hints, R
from gateway.upstream.policies.rank import hashed, preferred


class Session:
    """Counts what affinity counts."""

    def __init__(self) -> None:
        self._affinity = Affinity()

    def __call__(self, replicas: Sequence[R], hints: Hints, load_bound: float, /) -> Choice[R]:
        if not hints.session:
            return self._affinity(replicas, hints, load_bound)
        names = tuple([replica.name for replica in replicas])
        return first_within(replicas, preferred(names, range(len(names)), hashed(hints.session)), load_bound)
