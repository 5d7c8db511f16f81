"""What a policy is given and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec


class Replica(Protocol):
    """What a policy sees of a replica."""

    @property
    def name(self) -> str:
        """Its address, unique in the pool."""

    @property
    def load(self) -> float:
        """Requests on it: the gateway's own in flight, corrected by what others send it."""


class Hints(msgspec.Struct, frozen=True, gc=False):
    """What a request tells about where its caches are.

    `prefixes` are 64-bit hashes of ever longer beginnings: the system prompt with the tools, then that with the first
    turn. Empty: nothing worth finding in a cache. `session` is the header x-session-id.
    """

    prefixes: tuple[int, ...] = ()
    session: bytes | None = None


NO_HINTS = Hints()

R = TypeVar("R", bound=Replica)


class Choice(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """The replica chosen, and why, in a few words for the debug header."""

    replica: R
    reason: str


class Choose(Protocol):
    """A policy. It may count requests, but touches nothing else and never awaits."""

    def __call__(self, replicas: Sequence[R], hints: Hints, load_bound: float, /) -> Choice[R]:
        """One of `replicas`: never empty, only usable ones, in a stable order.

        `load_bound` times the mean load is what a replica may have before it is passed over.
        """
