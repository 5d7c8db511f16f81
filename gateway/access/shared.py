"""Quotas of several gateways together, counted in a Valkey or Redis server whose clock is the only one.

What a limit over a window means is said in `windows`; `charge.lua` does the same there. Requests at once are places in
a sorted set, each with a time until which it is held. Gateways renew those of their requests, so that the places of
one that was killed come back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import NoReturn

from gateway.access.limits import RULES, Meter, Reading, Rule, Subject, check_size, head_of, meters, refusal
from gateway.access.quota import UNLIMITED, Entry, MemoryQuotas
from gateway.access.store import Command, Script, Store, StoreError
from gateway.access.windows import corrections
from gateway.errors import OverloadedError
from gateway.settings import OnFailure, StoreSettings

#: Seconds that a place is held unless renewed, and between two renewals.
_LEASE = 20.0
_BEAT = 5.0

#: Names in one renewal.
_RENEWED_AT_ONCE = 500

Future = asyncio.Future[list[int]]


class SharedQuotas:
    """Counts in the store, and does what `on_failure` says while that is gone.

    `clock`, in seconds, is for counting alone meanwhile. Raises ConfigurationError where the settings cannot be meant.
    """

    def __init__(
        self,
        settings: StoreSettings,
        clock: Callable[[], float] = time.monotonic,
        rules: Sequence[Rule] = RULES,
        lease: float = _LEASE,
        beat: float = _BEAT,
    ) -> None:
        self._on_failure = settings.on_failure
        self._prefix = settings.prefix
        self._rules = rules
        self._lease = int(lease * 1000)
        self._local = MemoryQuotas(clock, rules)
        self._gateway = secrets.token_hex(8)
        self._numbers = count()
        self._held: dict[str, tuple[str, ...]] = {}
        self._charge = Script.load("charge.lua")
        self._settle = Script.load("settle.lua")
        self._renew = Script.load("renew.lua")
        self.store = Store(settings, (self._charge, self._settle, self._renew), self._renewals, beat)

    @property
    def failures(self) -> int:
        """Exchanges with the store that failed."""
        return self.store.failures

    @property
    def available(self) -> bool:
        """Whether the store answers."""
        return self.store.available

    def enter_now(self, subjects: Sequence[Subject], tokens: int) -> Entry | None:  # noqa: ARG002
        """The store has to be waited for."""
        return UNLIMITED if not subjects else None

    async def enter(self, subjects: Sequence[Subject], tokens: int) -> Entry:
        """Charges a request, as `Quotas` says. Raises OverloadedError (503) where `on_failure` is closed."""
        limits = meters(subjects, self._rules)
        crowded = [subject for subject in subjects if subject.limits.max_in_flight]
        if not limits and not crowded:
            return UNLIMITED
        entry = _SharedEntry(self, limits, crowded, f"{self._gateway}-{next(self._numbers)}")
        try:
            await entry.enter(tokens)
        except StoreError:
            return await self._without_store(subjects, tokens)
        return entry

    def report(self, on_failure: Callable[[], object]) -> None:
        """Has `on_failure` called for each exchange with the store that fails."""
        self.store.on_failure = on_failure

    async def aclose(self) -> None:
        """Settles what has ended, and disconnects."""
        await self.store.aclose()

    async def _without_store(self, subjects: Sequence[Subject], tokens: int) -> Entry:
        if self._on_failure is OnFailure.LOCAL:
            return await self._local.enter(subjects, tokens)
        self.refuse_if_closed()
        return UNLIMITED

    def refuse_if_closed(self) -> None:
        """Raises OverloadedError where nothing is let in without the store."""
        if self._on_failure is OnFailure.CLOSED:
            raise OverloadedError(
                "Quotas cannot be checked now: their store (quotas.store) does not answer. Please try again shortly.",
                retry_after=1,
            )

    def window_key(self, meter: Meter) -> str:
        """Where a window is. The braces put all keys of a prefix on one node of a cluster."""
        return f"{{{self._prefix}}}:{meter.subject.id}:{meter.rule.short}"

    def places_key(self, subject: Subject) -> str:
        """Where the places of a subject are."""
        return f"{{{self._prefix}}}:{subject.id}:places"

    def charge(
        self, limits: Sequence[tuple[Meter, int]], crowded: Sequence[Subject], name: str, *, only_look: bool = False
    ) -> Future:
        """Charges an amount to each limit, and a place of each subject. Raises StoreError where the store is gone."""
        arguments: list[str | int] = [int(only_look), self._lease, name, len(limits)]
        for meter, amount in limits:
            arguments += (meter.rule.slot, amount, meter.limit)
        arguments += (subject.limits.max_in_flight or 0 for subject in crowded)
        keys = [self.window_key(meter) for meter, _ in limits] + [self.places_key(s) for s in crowded]
        return self.store.call(self._charge, keys, arguments)

    def settle(self, changes: Sequence[tuple[Meter, int, int]], crowded: Sequence[Subject], name: str) -> None:
        """Corrects charges (limit, microseconds, difference), and frees a place of each subject. Does not wait."""
        self._held.pop(name, None)
        numbers: dict[str, int] = {}
        arguments: list[str | int] = []
        for meter, charged, difference in changes:
            number = numbers.setdefault(self.window_key(meter), len(numbers) + 1)
            arguments += (number, charged // meter.rule.slot, difference)
        keys = [*numbers, *(self.places_key(subject) for subject in crowded)]
        if keys:
            self.store.post(self._settle, keys, [name, len(numbers), *arguments])

    def hold(self, name: str, crowded: Sequence[Subject]) -> None:
        """Has a place of each subject renewed until it is settled."""
        if crowded:
            self._held[name] = tuple(self.places_key(subject) for subject in crowded)

    def _renewals(self) -> Iterator[Command]:
        names = defaultdict(list)
        for name, keys in self._held.items():
            for key in keys:
                names[key].append(name)
        for key, held in names.items():
            for start in range(0, len(held), _RENEWED_AT_ONCE):
                yield Command(self._renew, [key], [self._lease, *held[start : start + _RENEWED_AT_ONCE]])


class _SharedEntry:
    """A request that is counted in the store."""

    __slots__ = ("_charges", "_crowded", "_limits", "_name", "_open", "_quotas", "_standing", "_tokens")

    def __init__(self, quotas: SharedQuotas, limits: Sequence[Meter], crowded: Sequence[Subject], name: str) -> None:
        self._quotas = quotas
        self._limits = limits
        self._tokens = [meter for meter in limits if meter.rule.kind == "tokens"]
        self._crowded = crowded
        self._name = name
        self._charges: list[tuple[int, int]] = []
        self._standing: dict[str, list[Reading]] = {}
        self._open = True

    @property
    def head(self) -> bytes:
        """OpenAI's headers, as the limits stood when this was last charged."""
        return head_of([reading for readings in self._standing.values() for reading in readings])

    async def enter(self, tokens: int) -> None:
        """Charges the request. Raises RateLimitError and QuotaTooSmallError, and StoreError where the store is gone."""
        asked = self._asked(tokens)
        future = self._quotas.charge(asked, self._crowded, self._name)
        try:
            reply = await _answer(future, partial(self._undo, tokens))
        except StoreError:
            # It may have been done all the same: at least the place is freed.
            self.cancel()
            raise
        if not reply[0]:
            self._open = False
            check_size(self._limits, tokens)
            raise refusal(self._read(asked, reply))
        self._keep(tokens, reply)
        self._note(self._read(asked, reply))
        self._quotas.hold(self._name, self._crowded)

    async def add(self, tokens: int) -> None:
        """Charges more tokens, as `Entry` says. Raises OverloadedError (503) where `on_failure` is closed."""
        if not self._open or not self._tokens:
            return
        asked = [(meter, tokens) for meter in self._tokens]
        try:
            future = self._quotas.charge(asked, (), self._name)
            reply = await _answer(future, partial(self._keep_late, tokens))
        except StoreError:
            self._without_store()
            return
        if reply[0]:
            self._keep(tokens, reply)
            self._note(self._read(asked, reply))
        elif self._open:
            await self._refuse(tokens, self._read(asked, reply))

    def settle(self, tokens: int) -> None:
        """Ends it with the true usage, as `Entry` says."""
        self._end(tokens, 0)

    def cancel(self) -> None:
        """Ends it as if it had never been."""
        self._end(0, -1)

    def _end(self, tokens: int, requests: int) -> None:
        if not self._open:
            return
        self._open = False
        changes = [
            (meter, charged, difference)
            for charged, difference in corrections(self._charges, tokens)
            if difference
            for meter in self._tokens
        ]
        if requests and self._charges:
            counted = (meter for meter in self._limits if meter.rule.kind == "requests")
            changes += ((meter, self._charges[0][0], requests) for meter in counted)
        self._quotas.settle(changes, self._crowded, self._name)

    async def _refuse(self, more: int, readings: Sequence[Reading]) -> NoReturn:
        """Gives back all but the request, and raises with how long the whole of it has to wait then."""
        tokens = more + sum(amount for _, amount in self._charges)
        self.settle(0)
        check_size(self._tokens, tokens)
        asked = self._asked(tokens)
        with suppress(StoreError):
            readings = self._read(asked, await self._quotas.charge(asked, (), self._name, only_look=True))
        raise refusal(readings)

    def _without_store(self) -> None:
        """What more there is goes uncounted until the end, unless that is not allowed."""
        try:
            self._quotas.refuse_if_closed()
        except OverloadedError:
            self.settle(0)
            raise

    def _keep(self, tokens: int, reply: Sequence[int]) -> None:
        """Remembers a charge; one that came too late is given back."""
        if self._open:
            self._charges.append((reply[1], tokens))
        else:
            self._quotas.settle([(meter, reply[1], -tokens) for meter in self._tokens], (), self._name)

    def _keep_late(self, tokens: int, future: Future) -> None:
        """Remembers a charge that nobody waited for."""
        if not future.exception() and future.result()[0]:
            self._keep(tokens, future.result())

    def _undo(self, tokens: int, future: Future) -> None:
        """Takes back a request that nobody waited for."""
        self._keep_late(tokens, future)
        self.cancel()

    def _asked(self, tokens: int) -> list[tuple[Meter, int]]:
        return [(meter, 1 if meter.rule.kind == "requests" else tokens) for meter in self._limits]

    def _read(self, asked: Sequence[tuple[Meter, int]], reply: Sequence[int]) -> list[Reading]:
        """What a reply of `charge.lua` says."""
        windows = zip(asked, reply[2::3], reply[3::3], reply[4::3], strict=False)
        readings = [Reading.of(meter, used, amount, wait, reset) for (meter, amount), used, wait, reset in windows]
        places = zip(self._crowded, reply[2 + 3 * len(asked) :], strict=False)
        return readings + [Reading.places(s, s.limits.max_in_flight or 0, taken) for s, taken in places]

    def _note(self, readings: Sequence[Reading]) -> None:
        for kind in {reading.kind for reading in readings}:
            self._standing[kind] = [reading for reading in readings if reading.kind == kind]


async def _answer(future: Future, late: Callable[[Future], None]) -> Sequence[int]:
    """Waits for the store's answer; where the caller leaves meanwhile, `late` gets it."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(late)
        raise
