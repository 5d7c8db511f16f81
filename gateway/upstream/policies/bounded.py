"""The first replica of an order of preference that is not too loaded.

Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016): no replica gets a request while it
has its share of the mean load or more, and who is passed over moves on in an order that is always the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from gateway.upstream.policies.choice import Choice, R

#: Requests. Below that an engine is hardly slower than when idle: it takes them into the same batch.
NEVER_TOO_MANY = 4


def bound(loads: Sequence[float], load_bound: float) -> int:
    """Requests at which a replica is passed over: `load_bound` times the mean, this request included."""
    return max(NEVER_TOO_MANY, ceil(load_bound * (sum(loads) + 1) / len(loads)))


def first_within(replicas: Sequence[R], preference: Iterable[int], load_bound: float) -> Choice[R]:
    """Some replica is always below the bound, as long as `preference` names all positions."""
    loads = [replica.load for replica in replicas]
    most = bound(loads, load_bound)
    order = iter(preference)
    home = next(order)
    if loads[home] < most:
        return Choice(replicas[home], "home")
    chosen = next((at for at in order if loads[at] < most), home)
    return Choice(replicas[chosen], f"spilled from {replicas[home].name} (load {loads[home]:g} of bound {most})")
