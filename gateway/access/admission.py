"""How many requests are worked on at once, and who is let in next when more have come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prometheus_client import Counter, Gauge, Histogram

from gateway.access.queue import Queue
from gateway.errors import OverloadedError
from gateway.metrics import Metrics
from gateway.settings import LimitSettings

#: Why a request was refused, in metrics.
QUEUE_FULL, QUEUE_DEADLINE, DISPLACED = "queue_full", "queue_deadline", "displaced"


@dataclass(frozen=True, slots=True)
class AdmissionMetrics:
    """The series that admission keeps: requests in flight and waiting, how many seconds those waited that were let in
    after all, and refusals by reason.
    """

    in_flight: Gauge
    waiting: Gauge
    wait_seconds: Histogram
    shed: Counter

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """Those among all the gateway's."""
        return cls(metrics.in_flight, metrics.waiting, metrics.wait_seconds, metrics.shed)


class Admission:
    """Counts the requests in flight, and has those wait that are too many. All methods are for the loop's thread.

    While a request waits no place is free: a place that is freed is handed over to the next at once, so that nobody
    who comes later can take it. `clock` gives seconds.
    """

    def __init__(
        self, settings: LimitSettings, metrics: AdmissionMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._queue: Queue[_Ticket] = Queue()
        self._pace = Pace()
        self.in_flight = 0
        metrics.in_flight.set_function(lambda: self.in_flight)
        metrics.waiting.set_function(lambda: self._queue.size)
        self.configure(settings)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._queue.size

    def configure(self, settings: LimitSettings) -> None:
        """Sets other limits. A higher cap lets requests in at once; a lower one, and a shorter queue, send none away
        that are in. A changed deadline is for those who come later.
        """
        self._settings = settings
        # Read once per request, where an attribute of a pydantic model would take longer.
        self.cap = settings.max_in_flight
        self._let_in()

    def place(self, caller_id: str, priority: int) -> Place:
        """A place among the requests in flight, to be held by `async with`; lower `priority` is let in first.

        Entering it raises OverloadedError (503 with Retry-After) where the queue is full, where the request has waited
        too long, or where another that is more urgent, or of a caller with less in the queue, needs its room.
        """
        return Place(self, caller_id, priority)

    def enter(self) -> bool:
        """Takes a place, to be freed by `leave`, if there is one."""
        if self.in_flight >= self.cap:
            return False
        self.in_flight += 1
        return True

    async def wait(self, place: Place) -> None:
        """Waits for a place for a request that has none; raises OverloadedError as `place` says."""
        loop = asyncio.get_running_loop()
        ticket = _Ticket(place.caller, place.priority, loop.create_future())
        began = self._clock()
        self._enqueue(ticket, began)
        deadline = loop.call_later(self._settings.queue_seconds, self._expire, ticket)
        entered = False
        try:
            refusal = await ticket.outcome
            if refusal is not None:
                raise refusal
            entered = True
        finally:
            deadline.cancel()
            place.waited = self._clock() - began
            if not entered:
                self._abandon(ticket)
        self._metrics.wait_seconds.observe(place.waited)

    def leave(self) -> None:
        """Frees a place, and lets in who is next."""
        self.in_flight -= 1
        if self._queue.size:
            self._pace.step(self._clock())
            self._let_in()

    def _let_in(self) -> None:
        while self.in_flight < self.cap and (ticket := self._queue.first()) is not None:
            if ticket.outcome.done():
                # Its client has left in this very moment: that takes no place, and is not its caller's turn.
                self._queue.remove(ticket)
            else:
                self._queue.serve(ticket)
                ticket.outcome.set_result(None)
                self.in_flight += 1

    def _enqueue(self, newcomer: _Ticket, now: float) -> None:
        if self._queue.size == 0:
            self._pace.start(now)
        if self._queue.size >= self._settings.max_queued:
            self._make_room(newcomer)
        self._queue.add(newcomer)

    def _make_room(self, newcomer: _Ticket) -> None:
        """Displaces a request that waits; raises OverloadedError where it is the newcomer that has to go."""
        settings = self._settings
        victim = self._queue.victim(newcomer)
        full = (
            f"The server is at its limit of {settings.max_in_flight} requests at once (limits.max_in_flight)"
            f" and {settings.max_queued} that wait (limits.max_queued)"
        )
        if victim is None:
            raise self._refusal(QUEUE_FULL, f"{full}; try again shortly.")
        self._refuse(victim, DISPLACED, f"{full}, and others come first; try again shortly.")

    def _expire(self, ticket: _Ticket) -> None:
        settings = self._settings
        self._refuse(
            ticket,
            QUEUE_DEADLINE,
            f"The request waited {settings.queue_seconds:g} s (limits.queue_seconds) for one of"
            f" {settings.max_in_flight} places (limits.max_in_flight); try again shortly.",
        )

    def _refuse(self, ticket: _Ticket, reason: str, message: str) -> None:
        self._queue.remove(ticket)
        if not ticket.outcome.done():
            ticket.outcome.set_result(self._refusal(reason, message))

    def _refusal(self, reason: str, message: str) -> OverloadedError:
        self._metrics.shed.labels(reason).inc()
        return OverloadedError(message, retry_after=self._retry_after())

    def _retry_after(self) -> float:
        """Seconds until those who wait now are expected to be let in; at most the longest wait, after which all of
        them have gone one way or the other; at least what the settings say.
        """
        settings = self._settings
        expected = self._pace.seconds(self._queue.size + 1, self._clock())
        return max(1.0, settings.retry_after_seconds, min(expected, settings.queue_seconds))

    def _abandon(self, ticket: _Ticket) -> None:
        """The request is not going to be worked on: a cancellation may meet it just after it was given its place."""
        self._queue.remove(ticket)
        outcome = ticket.outcome
        if outcome.done() and not outcome.cancelled() and outcome.result() is None:
            self.leave()


class _Ticket:
    """A request that waits. Its outcome: None when it has its place, or the error that refuses it."""

    __slots__ = ("caller", "outcome", "priority")

    def __init__(self, caller: str, priority: int, outcome: asyncio.Future[OverloadedError | None]) -> None:
        self.caller = caller
        self.priority = priority
        self.outcome = outcome


class Place:
    """One request's place among those in flight, while the block runs. `waited` are seconds in the queue."""

    __slots__ = ("_admission", "caller", "priority", "waited")

    def __init__(self, admission: Admission, caller: str, priority: int) -> None:
        self._admission = admission
        self.caller = caller
        self.priority = priority
        self.waited = 0.0

    async def __aenter__(self) -> Self:
        admission = self._admission
        if admission.in_flight < admission.cap:
            admission.in_flight += 1
        else:
            await admission.wait(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave()


class Pace:
    """How fast places are freed while requests wait for them."""

    #: Of the newest interval in the mean: about the last 30 count.
    _WEIGHT = 1 / 16

    def __init__(self) -> None:
        self._interval: float | None = None
        self._last = 0.0

    def start(self, now: float) -> None:
        """Somebody begins to wait where nobody did: what was freed before says nothing about a full house."""
        self._last = now

    def step(self, now: float) -> None:
        """A place is freed."""
        interval = now - self._last
        mean = interval if self._interval is None else self._interval
        self._interval = mean + (interval - mean) * self._WEIGHT
        self._last = now

    def seconds(self, places: int, now: float) -> float:
        """The time in which that many are expected to be freed. Where none was for longer than usual, it is slower."""
        return places * max(self._interval or 0.0, now - self._last)
