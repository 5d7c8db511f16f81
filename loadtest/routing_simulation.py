"""Runs a trace over simulated engines, chosen by the gateway's own policies, event by event."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import fmean

from gateway.upstream.policies import Choose
from loadtest.routing_cache import BLOCK, PrefixCache, Segment
from loadtest.routing_engine import Engine, Request, Speed
from loadtest.routing_trace import Conversation, Trace, Traffic

#: Seconds between two readings of the engines' gauges, as in the gateway's settings.
_READING = 1.0


@dataclass(frozen=True)
class Plan:
    """What is simulated. Seconds are simulated ones; what happens in the first `warm_up` is not measured.

    `utilisation` is the arrival rate by the one that fills all slots if all that could be in a cache were in it.
    """

    engines: int
    gateways: int = 1
    utilisation: float = 0.75
    seconds: float = 300
    warm_up: float = 150
    load_bound: float = 1.25
    seed: int = 1
    traffic: Traffic = field(default_factory=Traffic)
    speed: Speed = field(default_factory=Speed)

    @property
    def conversations_per_second(self) -> float:
        """How many begin."""
        most = self.speed.most_requests_per_second(self.traffic.asked, self.traffic.answered)
        return self.utilisation * self.engines * most / self.traffic.requests


@dataclass(frozen=True, slots=True)
class Figures:
    """Hits are a share of the prompts' tokens, and then of those that one endless cache for all engines would have.

    Waits are seconds from arrival to the first prefill. `load` is the mean over time of the requests on an engine,
    `busiest` that of the busiest engine by it, and `busiest_computed` the same for the tokens computed.
    """

    requests: int
    hit: float
    of_ideal: float
    wait_p50: float
    wait_p99: float
    load: float
    busiest: float
    busiest_computed: float


@dataclass(slots=True)
class Seen:
    """What one gateway knows of an engine: its own requests at once, those of the others by the last reading."""

    name: str
    engine: int
    own: int = 0
    others: int = 0

    @property
    def load(self) -> float:
        """Requests on it."""
        return self.own + self.others


@dataclass(slots=True)
class Talk:
    """A conversation on its way: turns done, and tokens that are its own so far."""

    conversation: Conversation
    turn: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Measured:
    """Since the end of the warm-up. Blocks of prompts, and those of them that would ideally be cached; request seconds
    and tokens computed by engine."""

    requests: list[Request] = field(default_factory=list)
    prompt: int = 0
    ideal: int = 0
    load: list[float] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)


class Simulation:
    """One run of one policy, of which each gateway has its own."""

    def __init__(self, plan: Plan, gateways: Sequence[Choose]) -> None:
        self._plan = plan
        self._policies = gateways
        self._random = random.Random(plan.seed)  # noqa: S311 - the same each time
        self._engines = [Engine(plan.speed) for _ in range(plan.engines)]
        self._awake = [False] * plan.engines
        names = [f"10.0.{at // 8}.{at % 8}:8000" for at in range(plan.engines)]
        self._views = [[Seen(name, at) for at, name in enumerate(names)] for _ in gateways]
        self._arrivals = Trace(plan.traffic, plan.seed).conversations(plan.conversations_per_second)
        self._ideal = PrefixCache(1 << 60)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._measured = Measured(load=[0.0] * plan.engines)
        self._counted_until = [plan.warm_up] * plan.engines

    def run(self) -> Figures:
        """To the end of the plan."""
        self._next_arrival()
        self._at(_READING, self._read)
        self._at(self._plan.warm_up, self._warm)
        end = self._plan.warm_up + self._plan.seconds
        while True:
            now, _, happens = heapq.heappop(self._events)
            if now > end:
                break
            happens(now)
        for at in range(self._plan.engines):
            self._count_load(at, end)
        return self._figures()

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _next_arrival(self) -> None:
        conversation = next(self._arrivals)
        self._at(conversation.start, partial(self._begin, Talk(conversation)))

    def _begin(self, talk: Talk, now: float) -> None:
        self._next_arrival()
        self._ask(talk, now)

    def _ask(self, talk: Talk, now: float) -> None:
        gateway = self._random.randrange(len(self._views))
        view, choose = self._views[gateway], self._policies[gateway]
        seen = choose(view, talk.conversation.hints, self._plan.load_bound).replica
        seen.own += 1
        request = self._request(talk, seen, now)
        if now > self._plan.warm_up:
            self._measured.prompt += request.prompt
            self._measured.ideal += min(self._ideal.hit(request.chain), request.prompt - 1)
        self._ideal.take(request.chain)
        self._count_load(seen.engine, now)
        self._engines[seen.engine].arrive(request)
        if not self._awake[seen.engine]:
            self._awake[seen.engine] = True
            self._at(now, partial(self._step, seen.engine))

    def _request(self, talk: Talk, seen: Seen, now: float) -> Request:
        conversation = talk.conversation
        turn = conversation.turns[talk.turn]
        asked = talk.tokens + turn.asked
        talk.tokens = asked + turn.answered
        own = Segment(conversation.own, talk.tokens // BLOCK + 1)
        prompt = sum(segment.blocks for segment in conversation.shared) + asked // BLOCK + 1
        ends = partial(self._answered, talk, seen)
        return Request((*conversation.shared, own), prompt, turn.answered, now, ends, image=conversation.image)

    def _step(self, at: int, now: float) -> None:
        self._count_load(at, now)
        seconds = self._engines[at].step(now)
        self._awake[at] = seconds > 0
        if seconds:
            self._at(now + seconds, partial(self._step, at))

    def _answered(self, talk: Talk, seen: Seen, request: Request, now: float) -> None:
        seen.own -= 1
        if request.arrived > self._plan.warm_up:
            self._measured.requests.append(request)
        talk.turn += 1
        if talk.turn < len(talk.conversation.turns):
            self._at(now + talk.conversation.turns[talk.turn].think, partial(self._ask, talk))

    def _read(self, now: float) -> None:
        for seen in (seen for view in self._views for seen in view):
            seen.others = self._engines[seen.engine].load - seen.own
        self._at(now + _READING, self._read)

    def _warm(self, _now: float) -> None:
        self._measured.computed = [engine.computed for engine in self._engines]

    def _count_load(self, at: int, now: float) -> None:
        if now > self._counted_until[at]:
            self._measured.load[at] += self._engines[at].load * (now - self._counted_until[at])
            self._counted_until[at] = now

    def _figures(self) -> Figures:
        found = self._measured
        waits = sorted(request.started - request.arrived for request in found.requests)
        hit = sum(request.hit for request in found.requests) / sum(request.prompt for request in found.requests)
        computed = [engine.computed - cold for engine, cold in zip(self._engines, found.computed, strict=True)]
        return Figures(
            requests=len(waits),
            hit=hit,
            of_ideal=hit / (found.ideal / found.prompt),
            wait_p50=waits[len(waits) // 2],
            wait_p99=waits[len(waits) * 99 // 100],
            load=fmean(found.load) / self._plan.seconds,
            busiest=max(found.load) / fmean(found.load),
            busiest_computed=max(computed) / fmean(computed),
        )
