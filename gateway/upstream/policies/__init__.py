"""How a replica is chosen for a request: decisions only, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.settings.engines import Policy
from gateway.upstream.policies.affinity import Affinity
from gateway.upstream.policies.choice import NO_HINTS, Choice, Choose, Hints, R, Replica
from gateway.upstream.policies.least_requests import LeastRequests
from gateway.upstream.policies.round_robin import RoundRobin
from gateway.upstream.policies.session import Session

__all__ = ["NO_HINTS", "Choice", "Choose", "Hints", "Replica", "policy"]

_KINDS: dict[Policy, Callable[[], Choose]] = {
    Policy.AFFINITY: Affinity,
    Policy.LEAST_REQUESTS: LeastRequests,
    Policy.SESSION: Session,
    Policy.ROUND_ROBIN: RoundRobin,
}


def policy(kind: Policy) -> Choose:
    """A policy of that kind, for one pool: it may count, so pools do not share one."""
    several = _KINDS[kind]()

    def choose(replicas: Sequence[R], hints: Hints, load_bound: float, /) -> Choice[R]:
        return Choice(replicas[0], "the only replica") if len(replicas) == 1 else several(replicas, hints, load_bound)

    return choose
