"""The gateway's policies by name, and two that others use, to compare with."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from gateway.settings.engines import Policy
from gateway.upstream.policies import Choice, Choose, Hints, policy
from gateway.upstream.policies.choice import R


class PowerOfTwo:
    """The less loaded of two that chance picks."""

    def __init__(self) -> None:
        self._random = random.Random(2)  # noqa: S311 - the same each time

    def __call__(self, replicas: Sequence[R], _hints: Hints, _load_bound: float, /) -> Choice[R]:
        two = self._random.sample(replicas, min(2, len(replicas)))
        return Choice(min(two, key=lambda replica: replica.load), "less loaded of 2")


class Random:
    """Any."""

    def __init__(self) -> None:
        self._random = random.Random(3)  # noqa: S311 - the same each time

    def __call__(self, replicas: Sequence[R], _hints: Hints, _load_bound: float, /) -> Choice[R]:
        return Choice(self._random.choice(replicas), "by chance")


POLICIES: Mapping[str, Callable[[], Choose]] = MappingProxyType(
    {**{kind.value: partial(policy, kind) for kind in Policy}, "power_of_two": PowerOfTwo, "random": Random}
)
