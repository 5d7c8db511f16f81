"""Quotas: how much callers and models may use, counted in the memory of one gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from gateway.access.limits import RULES, Meter, Reading, Rule, Subject, check_size, head, meters, refusal
from gateway.access.tally import Charge, Usage, least_left, limited
from gateway.access.windows import corrections

#: Groups of subjects that are remembered with what they have used.
_MOST_CHARGES = 10_000

__all__ = ["UNLIMITED", "Entry", "MemoryQuotas", "Quotas", "Subject"]


class Entry(Protocol):
    """What one request was charged, from its admission to its end. Whoever holds it ends it by `settle` or `cancel`."""

    @property
    def head(self) -> bytes:
        """OpenAI's x-ratelimit-* headers as lines; of several limits of a kind the one with the least left speaks."""
        ...

    async def add(self, tokens: int) -> None:
        """Charges more tokens, which became known before the work starts.

        Raises RateLimitError and QuotaTooSmallError as `Quotas.enter` does. Everything but the request itself is then
        given back, and the entry has ended.
        """
        ...

    def settle(self, tokens: int) -> None:
        """Ends it with the tokens that were used in truth, which may be more than a limit: others then wait longer.

        What differs from the charge is corrected where that still counts. Does nothing to an entry that has ended.
        """
        ...

    def cancel(self) -> None:
        """Ends it as if it had never been. Does nothing to an entry that has ended."""
        ...


class Quotas(Protocol):
    """Where requests are counted. `available` is whether that can be done now."""

    @property
    def available(self) -> bool: ...

    def enter_now(self, subjects: Sequence[Subject], tokens: int) -> Entry | None:
        """Does what `enter` does where nothing has to be waited for; None where something has. Raises the same."""
        ...

    async def enter(self, subjects: Sequence[Subject], tokens: int) -> Entry:
        """Charges a request of that many tokens to all limits of all subjects, or to none.

        The same subjects should come as the same object: what they have used is then found at once.

        Raises RateLimitError (429) where one has no room for it now, and QuotaTooSmallError (400) where one never has.
        """
        ...

    def report(self, on_failure: Callable[[], object]) -> None:
        """Has `on_failure` called, from now on, whenever where it counts does not answer."""
        ...

    async def aclose(self) -> None:
        """Ends what it does in the background."""
        ...


class _Unlimited:
    """The entry of requests that fall under no limit."""

    head = b""

    async def add(self, tokens: int) -> None:
        """Nothing is counted."""

    def settle(self, tokens: int) -> None:
        """Nothing is counted."""

    def cancel(self) -> None:
        """Nothing is counted."""


UNLIMITED: Entry = _Unlimited()


class MemoryQuotas:
    """Counts in memory. `clock` is in seconds and never goes back."""

    available = True

    def __init__(self, clock: Callable[[], float] = time.monotonic, rules: Sequence[Rule] = RULES) -> None:
        self._clock = clock
        self._rules = rules
        self._usages: dict[str, Usage] = {}
        self._charges: dict[int, tuple[Sequence[Subject], Charge]] = {}
        #: How many have come since idle ones were last forgotten.
        self._new = 0

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._usages)

    def now(self) -> int:
        """The time in microseconds."""
        return int(self._clock() * 1_000_000)

    async def enter(self, subjects: Sequence[Subject], tokens: int) -> Entry:
        """Charges a request, as `Quotas` says."""
        return self.enter_now(subjects, tokens)

    def enter_now(self, subjects: Sequence[Subject], tokens: int) -> Entry:
        """Charges a request, as `Quotas` says."""
        known = self._charges.get(id(subjects))
        charge = known[1] if known is not None and known[0] is subjects else self._charge(subjects)
        if not charge.usages:
            return UNLIMITED
        now = int(self._clock() * 1_000_000)
        if not charge.fits(now, tokens):
            self.refuse(subjects, now, tokens)
        charge.make(now, tokens)
        if self._new:
            self._forget_idle(now)
        return _MemoryEntry(self, subjects, charge, now, tokens)

    def _charge(self, subjects: Sequence[Subject]) -> Charge:
        """Remembered until anything changes, the subjects with it, so that their id stays theirs."""
        charge = Charge(self._find(subjects))
        if len(self._charges) >= _MOST_CHARGES:
            self._charges.clear()
        self._charges[id(subjects)] = subjects, charge
        return charge

    def report(self, on_failure: Callable[[], object]) -> None:
        """Memory always answers."""

    async def aclose(self) -> None:
        """Nothing is done in the background."""

    def refuse(self, subjects: Sequence[Subject], now: int, tokens: int) -> None:
        """Raises what a request of that many tokens is refused with."""
        over = meters(subjects, self._rules)
        check_size(over, tokens)
        readings = [self._reading(meter, now, tokens) for meter in over]
        places = [(subject, subject.limits.max_in_flight) for subject in subjects]
        readings += [Reading.places(s, limit, self._usage(s).in_flight) for s, limit in places if limit]
        raise refusal(readings)

    def _reading(self, meter: Meter, now: int, tokens: int) -> Reading:
        window = self._usage(meter.subject).window(meter.rule)
        amount = 1 if meter.rule.kind == "requests" else tokens
        wait = window.wait(now, amount, meter.limit)
        return Reading.of(meter, window.used(now), amount, wait, window.empty_in(now))

    def _find(self, subjects: Sequence[Subject]) -> list[Usage]:
        """Those of the subjects that have limits."""
        found = []
        for subject in subjects:
            usage = self._usages.get(subject.id)
            if usage is not None and usage.limits is subject.limits:
                found.append(usage)
            elif limited(subject.limits):
                found.append(self._usage(subject))
        return found

    def _usage(self, subject: Subject) -> Usage:
        usage = self._usages.get(subject.id)
        if usage is None:
            self._new += 1
            usage = self._usages[subject.id] = Usage(subject.limits, self._rules)
        elif usage.limits is not subject.limits:
            usage.follow(subject.limits)
            self._charges.clear()
        return usage

    def _forget_idle(self, now: int) -> None:
        """For each subject that has come, looks at the two that were looked at longest ago, and forgets idle ones."""
        for name in list(islice(self._usages, 2 * self._new)):
            usage = self._usages.pop(name)
            if usage.is_idle(now):
                self._charges.clear()
            else:
                self._usages[name] = usage
        self._new = 0


class _MemoryEntry:
    """A request that is counted in memory."""

    __slots__ = ("_charge", "_charges", "_open", "_quotas", "_subjects")

    def __init__(
        self, quotas: MemoryQuotas, subjects: Sequence[Subject], charge: Charge, now: int, tokens: int
    ) -> None:
        self._quotas = quotas
        self._subjects = subjects
        self._charge = charge
        self._charges = [(now, tokens)]
        self._open = True

    @property
    def head(self) -> bytes:
        """OpenAI's headers, as the limits stand."""
        now = self._quotas.now()
        return head(least_left(self._charge.requests, now), least_left(self._charge.tokens, now))

    async def add(self, tokens: int) -> None:
        """Charges more tokens, as `Entry` says."""
        if not self._open:
            return
        now = self._quotas.now()
        if not self._charge.fits_more(now, tokens):
            charged = sum(amount for _, amount in self._charges)
            self.settle(0)
            self._quotas.refuse(self._subjects, now, charged + tokens)
        self._charges.append((now, tokens))
        for _, window in self._charge.tokens:
            window.charge(now, tokens)

    def settle(self, tokens: int) -> None:
        """Ends it with the true usage, as `Entry` says."""
        if not self._open:
            return
        self._open = False
        for usage in self._charge.usages:
            usage.in_flight -= 1
        for charged, difference in corrections(self._charges, tokens):
            for _, window in self._charge.tokens:
                window.adjust(charged, difference)

    def cancel(self) -> None:
        """Ends it as if it had never been."""
        if not self._open:
            return
        self.settle(0)
        for _, window in self._charge.requests:
            window.adjust(self._charges[0][0], -1)
