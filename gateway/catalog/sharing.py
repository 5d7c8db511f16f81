"""How the models that a name stands for share its requests: by weight, at random or the same for each user."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from blake3 import blake3

from gateway.catalog.routes import Route
from gateway.settings import ModelSettings, Sticky

_BITS = 53


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a name stands for."""

    alias: str
    """The configured name, `*` for the catch-all."""
    settings: ModelSettings
    """Its own settings, as configured."""
    routes: tuple[Route, ...]
    """The routes that have a weight, in configured order."""
    thresholds: tuple[float, ...]
    """Where the share of each route but the last ends, of the whole that is 1."""
    only: Route | None
    """The one route, where there is nothing to choose."""

    @property
    def sticky(self) -> Sticky:
        """By what requests are to be dealt out."""
        return self.settings.sticky

    def route(self, unit: float) -> Route:
        """The route whose share holds `unit`, from 0 to below 1: a random number, or a `sticky_unit`."""
        return self.only or self.routes[bisect_right(self.thresholds, unit)]


def share(alias: str, settings: ModelSettings, routes: Sequence[tuple[Route, int]]) -> Choice:
    """The choice among routes with these weights, of which one must be above 0.

    The shares lie side by side in configured order, so that a changed weight moves only those users who are between
    the old place of a border and its new one.
    """
    weighted = [(route, weight) for route, weight in routes if weight > 0]
    borders = list(accumulate(weight for _, weight in weighted))
    only = weighted[0][0] if len(weighted) == 1 else None
    thresholds = tuple(border / borders[-1] for border in borders[:-1])
    return Choice(alias, settings, tuple(route for route, _ in weighted), thresholds, only)


def sticky_unit(alias: str, value: str) -> float:
    """A number from 0 to below 1 that is always the same for a user or session `value` of a name, in all gateways.

    The name goes in, so that the users who get one canary do not get all of them.
    """
    digest = blake3(f"{alias}\0{value}".encode("utf-8", "surrogatepass")).digest(length=8)
    return (int.from_bytes(digest) >> 64 - _BITS) / (1 << _BITS)
