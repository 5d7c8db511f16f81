"""What subjects have used, and where one request is charged, in memory. Pure; every request comes through here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gateway.access.limits import Rule
from gateway.access.windows import Window
from gateway.settings import Limits


def limited(limits: Limits) -> bool:
    """Whether there is any limit at all."""
    return bool(limits.requests_per_minute or limits.tokens_per_minute or limits.max_in_flight or limits.tokens_per_day)


class Usage:
    """What one subject has used, and its limits as they now are: pairs of a limit and its window."""

    __slots__ = ("_rules", "_windows", "in_flight", "limits", "places", "requests", "tokens")

    def __init__(self, limits: Limits, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._windows: dict[str, Window] = {}
        self.in_flight = 0
        self.follow(limits)

    def follow(self, limits: Limits) -> None:
        """Takes on other limits and keeps what was counted."""
        self.limits = limits
        self.places: int = limits.max_in_flight or sys.maxsize
        self.requests: list[tuple[int, Window]] = []
        self.tokens: list[tuple[int, Window]] = []
        for rule in self._rules:
            limit: int | None = getattr(limits, rule.field)
            if limit is not None:
                pairs = self.requests if rule.kind == "requests" else self.tokens
                pairs.append((limit, self.window(rule)))

    def window(self, rule: Rule) -> Window:
        """Its window for a kind of limit."""
        return self._windows.get(rule.short) or self._windows.setdefault(rule.short, Window(rule.slot))

    def is_idle(self, now: int) -> bool:
        """Whether there is nothing to remember of it."""
        return self.in_flight == 0 and not any(window.used(now) for window in self._windows.values())


class Charge:
    """What requests of some subjects are charged to: the subjects, and their limits with their windows. Requests share
    it as long as neither subjects nor limits change.
    """

    __slots__ = ("requests", "tokens", "usages")

    def __init__(self, usages: Sequence[Usage]) -> None:
        self.usages = usages
        self.requests = [pair for usage in usages for pair in usage.requests]
        self.tokens = [pair for usage in usages for pair in usage.tokens]

    def fits(self, now: int, tokens: int) -> bool:
        """Whether a request has room everywhere."""
        for usage in self.usages:
            if usage.in_flight >= usage.places:
                return False
        for limit, window in self.requests:
            if now >= window.until:
                window.forget(now)
            if window.total >= limit:
                return False
        return self.fits_more(now, tokens)

    def fits_more(self, now: int, tokens: int) -> bool:
        """Whether more tokens have room. None always have, also while there is a debt."""
        if not tokens:
            return True
        for limit, window in self.tokens:
            if now >= window.until:
                window.forget(now)
            if window.total + tokens > limit:
                return False
        return True

    def make(self, now: int, tokens: int) -> None:
        """Charges a request."""
        for usage in self.usages:
            usage.in_flight += 1
        # What `Window.charge` does, where the slot is there: a call for each window would cost as much as all of this.
        for _, window in self.requests:
            if now < window.latest_end:
                window.amounts[window.latest] += 1
                window.total += 1
            else:
                window.charge(now, 1)
        for _, window in self.tokens:
            if now < window.latest_end:
                window.amounts[window.latest] += tokens
                window.total += tokens
            else:
                window.charge(now, tokens)


def least_left(pairs: Sequence[tuple[int, Window]], now: int) -> tuple[int, int, int] | None:
    """What remains of the limit with the least left, that limit, and the microseconds until all of it is free."""
    if not pairs:
        return None
    if len(pairs) == 1:
        limit, window = pairs[0]
        return limit - window.used(now), limit, window.empty_in(now)
    least, at, tightest = sys.maxsize, 0, pairs[0][1]
    for limit, window in pairs:
        if now >= window.until:
            window.forget(now)
        if limit - window.total < least:
            least, at, tightest = limit - window.total, limit, window
    return least, at, tightest.empty_in(now)
