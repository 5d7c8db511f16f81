"""Where a request's beginning is in the caches, unless that replica is too loaded.

The system prompt picks some replicas, the more the more it is asked for; media or a long text in the first turn pick
some of those, in the same way; and the conversation picks one. So what is rare fills few caches, what is frequent is
everywhere, and all turns of a conversation meet again. Whoever is passed over goes to the next of those replicas, then
to the others. Requests without prefixes go to the least loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from gateway.upstream.policies.bounded import first_within
from gateway.upstream.policies.choice import Choice, Hints, R
from gateway.upstream.policies.least_requests import LeastRequests
from gateway.upstream.policies.popularity import Popularity
from gateway.upstream.policies.rank import Names, preferred, ranked


class Affinity:
    """Counts how often each beginning is asked for."""

    def __init__(self) -> None:
        self._least = LeastRequests()
        self._popularity = Popularity()

    def __call__(self, replicas: Sequence[R], hints: Hints, load_bound: float, /) -> Choice[R]:
        if not hints.prefixes:
            return self._least(replicas, hints, load_bound)
        names = tuple([replica.name for replica in replicas])
        return first_within(replicas, self._order(names, hints.prefixes), load_bound)

    def _order(self, names: Names, prefixes: tuple[int, ...]) -> Iterator[int]:
        """All positions, home first."""
        *beginnings, conversation = prefixes
        members: Sequence[int] = range(len(names))
        others: tuple[int, ...] = ()
        for beginning, width in zip(beginnings, self._popularity.widths(beginnings, len(names)), strict=True):
            # Of all replicas the order is remembered: a system prompt comes again and again.
            everyone = len(members) == len(names)
            liked = ranked(names, beginning) if everyone else tuple(preferred(names, members, beginning))
            members, others = liked[:width], liked[width:] + others
        return chain(preferred(names, members, conversation), others)
