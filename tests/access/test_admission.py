"""Never more requests than the cap are worked on; those that wait are let in by priority, and their callers in turn."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.access.admission import Admission, AdmissionMetrics
from gateway.errors import OverloadedError
from gateway.metrics import Metrics
from gateway.settings import LimitSettings

T = TypeVar("T")


class _Skipping(selectors.SelectSelector):
    """Waits for nothing: time passes by itself when there is nothing else to do."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everyone waits, for nothing")
        self.now += max(0.0, timeout)
        return super().select(0)


class InstantLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next deadline."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def instantly(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(main)


@dataclass
class House:
    """An admission and the requests that have come to it.

    `takes_along`: whose client leaves in the very step in which a request has given back its place.
    """

    admission: Admission
    metrics: Metrics
    log: list[str] = field(default_factory=list)
    refused: dict[str, OverloadedError] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    ends: dict[str, asyncio.Event] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    takes_along: dict[str, str] = field(default_factory=dict)

    async def arrive(self, *names: str, priority: int = 0) -> None:
        """Requests such as `a1`, of caller `a`."""
        for name in names:
            self.come(name, priority)
        await settled()

    def come(self, name: str, priority: int) -> None:
        """As `arrive`, but nothing has happened yet."""
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, priority))

    async def _run(self, name: str, priority: int) -> None:
        place = self.admission.place(name[0], priority)
        try:
            async with place:
                self.log.append(name)
                await self.ends[name].wait()
            if name in self.takes_along:
                self.tasks[self.takes_along[name]].cancel()
        except OverloadedError as refusal:
            self.refused[name] = refusal
        finally:
            self.waited[name] = place.waited

    async def depart(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
        await settled()

    async def leave(self, *names: str) -> None:
        """Their clients go away."""
        for name in names:
            self.tasks[name].cancel()
        await settled()

    async def depart_and_leave(self, name: str, other: str) -> None:
        """When the first gives back its place, the cancellation of the other is on its way."""
        self.ends[name].set()
        await self.leave(other)

    async def run_down(self) -> list[str]:
        """Ends whoever is in, one after the other, until nobody is; the order in which all came in."""
        while self.admission.in_flight:
            await self.depart(next(name for name in self.log if not self.tasks[name].done()))
        return self.log

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"gemma_gateway_{name}", labels) or 0.0


async def settled() -> None:
    """Lets everyone do what they can now, but no deadline pass."""
    for _ in range(10):
        await asyncio.sleep(0)


def limits(cap: int = 1, queued: int = 100, seconds: float = 10, retry_after: float = 1) -> LimitSettings:
    return LimitSettings(max_in_flight=cap, max_queued=queued, queue_seconds=seconds, retry_after_seconds=retry_after)


def house(cap: int = 1, queued: int = 100, seconds: float = 10, retry_after: float = 1) -> House:
    metrics = Metrics()
    clock = asyncio.get_running_loop().time
    return House(Admission(limits(cap, queued, seconds, retry_after), AdmissionMetrics.of(metrics), clock), metrics)


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs on the instant loop."""

    def test() -> None:
        instantly(story())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


@told
async def test_a_place_is_taken_without_waiting_while_one_is_free() -> None:
    one = house(cap=2)
    await one.arrive("a1", "a2")
    assert (one.log, one.admission.in_flight, one.admission.waiting) == (["a1", "a2"], 2, 0)
    await one.depart("a1", "a2")
    assert (one.admission.in_flight, one.waited) == (0, {"a1": 0, "a2": 0})
    assert one.sample("wait_seconds_count") == 0


@told
async def test_requests_over_the_cap_wait_and_are_shown() -> None:
    one = house(cap=1)
    await one.arrive("a1", "a2", "a3")
    assert (one.sample("requests_in_flight"), one.sample("requests_waiting")) == (1, 2)
    assert await one.run_down() == ["a1", "a2", "a3"]
    assert (one.sample("requests_in_flight"), one.sample("requests_waiting")) == (0, 0)


@told
async def test_the_time_in_the_queue_is_told_and_counted() -> None:
    one = house(cap=1)
    await one.arrive("a1", "a2")
    await asyncio.sleep(3)
    await one.depart("a1")
    await one.depart("a2")
    assert one.waited["a2"] == pytest.approx(3)
    assert one.sample("wait_seconds_count") == 1
    assert one.sample("wait_seconds_sum") == pytest.approx(3)


@told
async def test_callers_take_turns_and_each_ones_requests_go_by_arrival() -> None:
    one = house(cap=1)
    await one.arrive("x1", "a1", "a2", "a3", "b1", "c1", "b2")
    assert await one.run_down() == ["x1", "a1", "b1", "c1", "a2", "b2", "a3"]


@told
async def test_a_lower_priority_number_goes_first_whatever_the_turn() -> None:
    one = house(cap=1)
    await one.arrive("x1")
    await one.arrive("a1", "b1", priority=5)
    await one.arrive("a2", priority=-5)
    await one.arrive("c1", priority=0)
    assert await one.run_down() == ["x1", "a2", "c1", "a1", "b1"]


@told
async def test_a_newcomer_cannot_take_the_place_that_was_handed_over() -> None:
    one = house(cap=1)
    await one.arrive("a1", "b1")
    one.ends["a1"].set()
    await asyncio.sleep(0)
    await one.arrive("c1")
    assert (one.log, one.admission.in_flight, one.admission.waiting) == (["a1", "b1"], 1, 1)
    assert await one.run_down() == ["a1", "b1", "c1"]


@told
async def test_a_full_queue_refuses_the_newcomer_of_the_caller_with_the_most_waiting() -> None:
    one = house(cap=1, queued=2, retry_after=7)
    await one.arrive("a1", "a2", "a3", "a4")
    refusal = one.refused["a4"]
    assert "limits.max_queued" in refusal.message
    assert "limits.max_in_flight" in refusal.message
    assert refusal.headers() == [(b"retry-after", b"7")]
    assert one.sample("requests_shed_total", reason="queue_full") == 1
    assert await one.run_down() == ["a1", "a2", "a3"]


@told
async def test_a_caller_with_less_in_a_full_queue_displaces_the_newest_of_the_one_with_the_most() -> None:
    one = house(cap=1, queued=4)
    await one.arrive("x1", "b1", "a1", "a2", "a3", "c1")
    assert list(one.refused) == ["a3"]
    assert "limits.max_queued" in one.refused["a3"].message
    assert one.sample("requests_shed_total", reason="displaced") == 1
    assert await one.run_down() == ["x1", "b1", "a1", "c1", "a2"]


@told
async def test_the_more_urgent_displaces_the_least_urgent_even_of_the_same_caller() -> None:
    one = house(cap=1, queued=3)
    await one.arrive("x1", "a1")
    await one.arrive("b1", "b2", priority=9)
    await one.arrive("a2", priority=-1)
    await one.arrive("b3", priority=0)
    assert list(one.refused) == ["b2", "b1"]
    assert await one.run_down() == ["x1", "a2", "a1", "b3"]


@told
async def test_of_callers_with_equally_many_the_one_whose_turn_is_last_loses() -> None:
    one = house(cap=1, queued=4)
    await one.arrive("x1")
    await one.arrive("b1", "a1", "a2", "b2", priority=1)
    await one.arrive("c1")
    assert list(one.refused) == ["a2"]
    await one.run_down()


@told
async def test_the_less_urgent_displaces_nobody() -> None:
    one = house(cap=1, queued=2)
    await one.arrive("x1", "a1", "a2")
    await one.arrive("b1", priority=1)
    assert list(one.refused) == ["b1"]
    assert await one.run_down() == ["x1", "a1", "a2"]


@told
async def test_without_a_queue_what_is_over_the_cap_is_refused() -> None:
    one = house(cap=1, queued=0)
    await one.arrive("a1", "b1")
    assert list(one.refused) == ["b1"]
    assert await one.run_down() == ["a1"]


@told
async def test_who_waits_too_long_is_refused() -> None:
    one = house(cap=1, seconds=10)
    await one.arrive("a1", "a2")
    await asyncio.sleep(9.9)
    assert one.refused == {}
    await asyncio.sleep(0.2)
    assert "10 s (limits.queue_seconds)" in one.refused["a2"].message
    assert one.admission.waiting == 0
    assert one.waited["a2"] == pytest.approx(10)
    assert one.sample("requests_shed_total", reason="queue_deadline") == 1
    assert (await one.run_down(), one.admission.in_flight) == (["a1"], 0)


@told
async def test_a_client_that_leaves_frees_its_room_in_the_queue() -> None:
    one = house(cap=1, queued=1)
    await one.arrive("a1", "b1")
    await one.leave("b1")
    assert one.admission.waiting == 0
    await one.arrive("c1")
    assert one.refused == {}
    assert await one.run_down() == ["a1", "c1"]


@told
async def test_a_client_that_leaves_just_before_its_turn_takes_no_place() -> None:
    one = house(cap=1)
    await one.arrive("a1", "b1", "c1")
    await one.depart_and_leave("a1", "b1")
    assert (one.log, one.admission.in_flight) == (["a1", "c1"], 1)
    await one.depart("c1")
    assert (one.admission.in_flight, one.admission.waiting) == (0, 0)


@told
async def test_a_client_that_leaves_just_before_its_turn_does_not_use_up_its_callers() -> None:
    one = house(cap=1)
    await one.arrive("x1", "a1", "a2", "b1")
    await one.depart_and_leave("x1", "a1")
    assert await one.run_down() == ["x1", "a2", "b1"]


@told
async def test_a_client_that_leaves_just_after_it_got_its_place_passes_it_on() -> None:
    one = house(cap=1)
    async with one.admission.place("x", 0):
        await one.arrive("b1", "c1")
    # The place is b1's now, though b1 has not run since.
    await one.leave("b1")
    assert (one.log, one.admission.in_flight) == (["c1"], 1)
    await one.depart("c1")
    assert (one.admission.in_flight, one.admission.waiting) == (0, 0)


@told
async def test_a_client_that_leaves_just_after_it_was_refused_is_only_gone() -> None:
    one = house(cap=1, queued=1)
    await one.arrive("a1", "b1")
    one.come("c1", priority=-1)
    await asyncio.sleep(0)
    # It has displaced b1, though b1 has not run since.
    await one.leave("b1")
    assert (one.log, one.refused, one.admission.waiting) == (["a1"], {}, 1)
    assert await one.run_down() == ["a1", "c1"]


@told
async def test_a_fault_inside_frees_the_place() -> None:
    one = house(cap=1)
    with pytest.raises(ZeroDivisionError):
        async with one.admission.place("a", 0):
            _ = 1 / 0
    assert one.admission.in_flight == 0


@told
async def test_a_raised_cap_lets_those_in_who_wait() -> None:
    one = house(cap=1)
    await one.arrive("a1", "a2", "b1", "a3")
    one.admission.configure(limits(cap=3))
    await settled()
    assert (one.log, one.admission.in_flight, one.admission.waiting) == (["a1", "a2", "b1"], 3, 1)
    assert await one.run_down() == ["a1", "a2", "b1", "a3"]


@told
async def test_a_lowered_cap_holds_once_enough_have_left() -> None:
    one = house(cap=3)
    await one.arrive("a1", "a2", "a3", "a4")
    one.admission.configure(limits(cap=1))
    await one.depart("a1", "a2")
    assert (one.log, one.admission.in_flight) == (["a1", "a2", "a3"], 1)
    await one.depart("a3")
    assert (one.log[-1], one.admission.in_flight) == ("a4", 1)
    await one.run_down()


@told
async def test_retry_after_is_the_time_in_which_those_who_wait_are_let_in() -> None:
    one = house(cap=1, queued=8, seconds=60)
    names = [f"a{number}" for number in range(30)]
    await one.arrive(*names[:9])
    for done, new in zip(names, names[9:], strict=False):
        await asyncio.sleep(0.5)
        await one.depart(done)
        await one.arrive(new)
    await one.arrive("a99")
    wait = one.refused["a99"].retry_after
    assert wait == pytest.approx(9 * 0.5, rel=0.05)
    waiting, began = one.admission.waiting, asyncio.get_running_loop().time()
    for done in names[21:30]:
        await asyncio.sleep(0.5)
        await one.depart(done)
    assert (waiting, one.admission.waiting) == (8, 0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(wait, rel=0.05)


@told
async def test_retry_after_grows_while_no_place_is_freed_up_to_the_longest_wait() -> None:
    one = house(cap=1, queued=1, seconds=20, retry_after=2)
    await one.arrive("a1", "a2", "a3")
    await asyncio.sleep(4)
    await one.arrive("a4")
    await asyncio.sleep(15)
    await one.arrive("a5")
    assert [one.refused[name].retry_after for name in ("a3", "a4", "a5")] == [2, pytest.approx(8), 20]
    await one.leave("a2")
    await one.depart("a1")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_callers_who_all_wait_get_equal_shares(backlogs: list[int], cap: int, chance: random.Random) -> None:
    async def story() -> list[str]:
        one = house(cap=cap, queued=1000)
        await one.arrive(*(f"x{number}" for number in range(cap)))
        names = [f"{'abcde'[caller]}{number}" for caller, count in enumerate(backlogs) for number in range(count)]
        chance.shuffle(names)
        await one.arrive(*names)
        return (await one.run_down())[cap:]

    order = [name[0] for name in instantly(story())]
    assert len(order) == sum(backlogs)
    # Until the first has nothing left, nobody is more than one ahead.
    for served in range(min(backlogs) * len(backlogs)):
        shares = Counter(order[:served])
        assert max(shares.values(), default=0) - min(shares["abcde"[n]] for n in range(len(backlogs))) <= 1


@dataclass(frozen=True)
class Waiter:
    name: str
    priority: int
    deadline: float

    @property
    def caller(self) -> str:
        return self.name[0]


@dataclass
class Model:
    """What admission is to do, in the plainest way."""

    limits: LimitSettings
    inside: list[str] = field(default_factory=list)
    waiting: list[Waiter] = field(default_factory=list)
    turns: dict[int, list[str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def arrive(self, name: str, priority: int, now: float) -> None:
        newcomer = Waiter(name, priority, now + self.limits.queue_seconds)
        if len(self.inside) < self.limits.max_in_flight:
            self.inside.append(name)
            return
        if len(self.waiting) >= self.limits.max_queued:
            loser = self._loser(newcomer)
            self.refused.add(loser.name)
            if loser is newcomer:
                return
            self._remove(loser)
        self.waiting.append(newcomer)
        turns = self.turns.setdefault(priority, [])
        if newcomer.caller not in turns:
            turns.append(newcomer.caller)

    def _loser(self, newcomer: Waiter) -> Waiter:
        worst = max((waiter.priority for waiter in self.waiting), default=newcomer.priority)
        at_worst = [waiter for waiter in self.waiting if waiter.priority == worst]
        counts = Counter(waiter.caller for waiter in at_worst)
        most = max(counts.values(), default=0)
        if newcomer.priority > worst or (newcomer.priority == worst and counts[newcomer.caller] + 1 >= most):
            return newcomer
        caller = [caller for caller in self.turns[worst] if counts[caller] == most][-1]
        return [waiter for waiter in at_worst if waiter.caller == caller][-1]

    def _remove(self, gone: Waiter) -> None:
        self.waiting.remove(gone)
        if not any((w.priority, w.caller) == (gone.priority, gone.caller) for w in self.waiting):
            self.turns[gone.priority].remove(gone.caller)

    def let_in(self) -> None:
        while self.waiting and len(self.inside) < self.limits.max_in_flight:
            best = min(waiter.priority for waiter in self.waiting)
            caller = self.turns[best].pop(0)
            self.turns[best].append(caller)
            chosen = next(w for w in self.waiting if (w.priority, w.caller) == (best, caller))
            self._remove(chosen)
            self.inside.append(chosen.name)

    def leave(self, name: str) -> None:
        if name in self.inside:
            self.inside.remove(name)
        for waiter in [waiter for waiter in self.waiting if waiter.name == name]:
            self._remove(waiter)
        self.let_in()

    def expire(self, now: float) -> None:
        for waiter in [waiter for waiter in self.waiting if waiter.deadline <= now]:
            self._remove(waiter)
            self.refused.add(waiter.name)

    def living(self) -> list[str]:
        return [*self.inside, *(waiter.name for waiter in self.waiting)]


class Comings(RuleBasedStateMachine):
    """Requests that come, end, wait too long and lose their clients, while limits change: as the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=InstantLoop)
        self.model = Model(limits(cap=2, queued=3, seconds=5))
        self.house = self.runner.run(self._build())
        self.count = 0

    async def _build(self) -> House:
        return house(cap=2, queued=3, seconds=5)

    @rule(caller=st.sampled_from("abc"), priority=st.integers(-1, 1), times=st.integers(1, 4))
    def arrive(self, caller: str, priority: int, times: int) -> None:
        for _ in range(times):
            self.count += 1
            name = f"{caller}{self.count}"
            self.runner.run(self.house.arrive(name, priority=priority))
            self.model.arrive(name, priority, self.runner.get_loop().time())

    @precondition(lambda self: self.model.inside)
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.model.inside))
        self.runner.run(self.house.depart(name))
        self.model.leave(name)

    @precondition(lambda self: self.model.living())
    @rule(data=st.data())
    def lose_client(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.model.living()))
        self.runner.run(self.house.leave(name))
        self.model.leave(name)

    @precondition(lambda self: self.model.inside and self.model.waiting)
    @rule(data=st.data(), before=st.booleans())
    def lose_client_while_another_departs(self, data: st.DataObject, *, before: bool) -> None:
        name = data.draw(st.sampled_from(self.model.inside))
        other = data.draw(st.sampled_from([waiter.name for waiter in self.model.waiting]))
        if before:
            self.runner.run(self.house.depart_and_leave(name, other))
            self.model.leave(other)
            self.model.leave(name)
        else:
            self.house.takes_along[name] = other
            self.runner.run(self.house.depart(name))
            self.model.leave(name)
            self.model.leave(other)

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        self.runner.run(asyncio.sleep(seconds))
        self.runner.run(settled())
        self.model.expire(self.runner.get_loop().time())

    @rule(cap=st.integers(1, 4), queued=st.integers(0, 4))
    def configure(self, cap: int, queued: int) -> None:
        self.model.limits = limits(cap, queued, seconds=5)
        self.house.admission.configure(self.model.limits)
        self.runner.run(settled())
        self.model.let_in()

    @invariant()
    def agrees(self) -> None:
        admission, model = self.house.admission, self.model
        inside = [name for name in self.house.log if not self.house.tasks[name].done()]
        assert sorted(inside) == sorted(model.inside)
        assert (admission.in_flight, admission.waiting) == (len(model.inside), len(model.waiting))
        assert set(self.house.refused) == model.refused
        assert admission.waiting == 0 or admission.in_flight >= admission.cap

    def teardown(self) -> None:
        self.runner.run(self.house.run_down())
        admission = self.house.admission
        self.runner.close()
        assert (admission.in_flight, admission.waiting) == (0, 0)


TestComings = Comings.TestCase
TestComings.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_leaks_of_thousands_of_requests_half_of_which_are_cancelled(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    chance = random.Random(7)
    most = 0

    async def request(admission: Admission, number: int) -> None:
        nonlocal most
        await asyncio.sleep(chance.random() / 20)
        async with admission.place(str(number % 13), number % 3):
            most = max(most, admission.in_flight)
            await asyncio.sleep(chance.choice((0, 0.0005, 0.001)))

    async def main() -> Admission:
        admission = Admission(limits(cap=16, queued=500, seconds=0.05), AdmissionMetrics.of(Metrics()))
        tasks = [asyncio.create_task(request(admission, number)) for number in range(2000)]
        for task in chance.sample(tasks, 1000):
            asyncio.get_running_loop().call_later(chance.random() / 10, task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} >= {type(None), asyncio.CancelledError}
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError, OverloadedError}
        return admission

    with asyncio.Runner(loop_factory=loop) as runner:
        admission = runner.run(main())
    assert (admission.in_flight, admission.waiting, most) == (0, 0, 16)
