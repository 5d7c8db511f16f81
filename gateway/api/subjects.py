"""Whose limits a request falls under: its key's, those of its model by either name, and those of all together."""

from __future__ import annotations

from gateway.access.callers import Caller
from gateway.access.quota import Subject
from gateway.catalog import Route
from gateway.settings import Limits, QuotaSettings

#: Pairs of caller and model that are remembered at once.
_MOST = 10_000

_NO_LIMITS = Limits()


class Subjects:
    """Finds them, once for each pair of caller and model."""

    def __init__(self, settings: QuotaSettings) -> None:
        self._settings = settings
        self._known: dict[tuple[str, Route], tuple[Caller, tuple[Subject, ...]]] = {}

    def of(self, caller: Caller | None, route: Route | None) -> tuple[Subject, ...]:
        """Those that have limits at all."""
        if caller is None or route is None:
            return ()
        pair = (caller.id, route)
        known = self._known.get(pair)
        # A key that was changed is another object.
        if known is not None and known[0] is caller:
            return known[1]
        if len(self._known) >= _MOST:
            self._known.clear()
        subjects = self._find(caller, route)
        self._known[pair] = caller, subjects
        return subjects

    def _find(self, caller: Caller, route: Route) -> tuple[Subject, ...]:
        every = (
            Subject(f"key:{caller.id}", "this caller", _over(caller.grant.limits, self._settings.each_key)),
            *(Subject(f"model:{name}", f"the model '{name}'", limits) for name, limits in route.limited),
            Subject("total", "all callers together", self._settings.total),
        )
        return tuple(subject for subject in every if subject.limits != _NO_LIMITS)


def _over(own: Limits, each: Limits) -> Limits:
    """A key's own limits, and where it says nothing, those of each key."""
    return each.model_copy(update=own.model_dump(exclude_none=True))
