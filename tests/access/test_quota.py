"""Quotas behave the same wherever they are counted; those in memory also as a plain list of events says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.limits import RULES, Rule, duration
from gateway.access.quota import UNLIMITED, Entry, MemoryQuotas, Quotas, Subject
from gateway.access.shared import SharedQuotas
from gateway.errors import QuotaTooSmallError, RateLimitError
from gateway.settings import Limits
from tests.access.valkey import serving

#: A minute is half a second long, a day one and a half.
SHORT = tuple(replace(rule, slot=5_000 if rule.slot == 600_000 else 15_000) for rule in RULES)


@dataclass
class Clock:
    """A clock that is set by hand, in seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Counted:
    """Quotas, and how to let time pass for them."""

    quotas: Quotas
    sleep: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "shared"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def counted(kind: str, directory: Path, rules: tuple[Rule, ...]) -> AsyncIterator[Counted]:
    if kind == "memory":
        clock = Clock()
        yield Counted(MemoryQuotas(clock, rules), clock.sleep)
        return
    with serving(directory) as server:
        shared = SharedQuotas(server.settings(), rules=rules)
        yield Counted(shared, asyncio.sleep)
        assert shared.failures == 0
        await shared.aclose()


@pytest.fixture
async def quotas(kind: str, tmp_path: Path) -> AsyncIterator[Quotas]:
    async for made in counted(kind, tmp_path, RULES):
        yield made.quotas


@pytest.fixture
async def short(kind: str, tmp_path: Path) -> AsyncIterator[Counted]:
    async for made in counted(kind, tmp_path, SHORT):
        yield made


def key(**limits: int) -> Subject:
    return Subject("key:0a1b2c", "this caller", Limits(**limits))


def model(**limits: int) -> Subject:
    return Subject("model:gemma", "the model 'gemma'", Limits(**limits))


async def refused(quotas: Quotas, subjects: list[Subject], tokens: int) -> RateLimitError:
    with pytest.raises(RateLimitError) as caught:
        await quotas.enter(subjects, tokens)
    return caught.value


def told(entry: Entry | RateLimitError) -> dict[str, str]:
    if isinstance(entry, RateLimitError):
        fields = entry.headers()
    else:
        fields = [(name, value) for name, _, value in (line.partition(b": ") for line in entry.head.splitlines())]
    return {name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in fields}


async def test_requests_beyond_the_limit_are_refused(quotas: Quotas) -> None:
    for _ in range(3):
        await quotas.enter([key(requests_per_minute=3)], 10)
    error = await refused(quotas, [key(requests_per_minute=3)], 10)
    assert error.type == "requests"
    assert error.message.startswith(
        "Rate limit reached for this caller on requests per minute (RPM): limit 3, used 3, requested 1."
    )


async def test_tokens_beyond_the_limit_are_refused_with_openais_words(quotas: Quotas) -> None:
    await quotas.enter([model(tokens_per_minute=1000)], 900)
    error = await refused(quotas, [model(tokens_per_minute=1000)], 200)
    assert error.type == "tokens"
    assert error.message.startswith(
        "Rate limit reached for the model 'gemma' on tokens per minute (TPM): limit 1000, used 900, requested 200."
        " Please try again in 1m"
    )
    assert 59.9 < (error.retry_after or 0) < 60.7


async def test_refusal_charges_nothing_anywhere(quotas: Quotas) -> None:
    wide, narrow = key(requests_per_minute=2, tokens_per_minute=100, max_in_flight=2), model(tokens_per_minute=50)
    (await quotas.enter([narrow], 30)).settle(30)
    await refused(quotas, [wide, narrow], 40)
    for _ in range(2):
        await quotas.enter([wide], 50)


async def test_refused_request_that_waits_as_told_is_let_in(short: Counted) -> None:
    subjects = [key(requests_per_minute=3, tokens_per_day=120), model(tokens_per_minute=100)]
    for tokens in (50, 40, 30):
        await short.sleep(0.02)
        try:
            (await short.quotas.enter(subjects, tokens)).settle(tokens)
        except RateLimitError as sooner:
            await short.sleep(sooner.retry_after or 0)
            (await short.quotas.enter(subjects, tokens)).settle(tokens)
    error = await refused(short.quotas, subjects, 90)
    await short.sleep(error.retry_after or 0)
    await short.quotas.enter(subjects, 90)


async def test_refused_addition_that_waits_as_told_is_let_in_as_a_whole(short: Counted) -> None:
    subject = key(requests_per_minute=2, tokens_per_minute=100)
    (await short.quotas.enter([subject], 40)).settle(40)
    await short.sleep(0.05)
    entry = await short.quotas.enter([subject], 30)
    with pytest.raises(RateLimitError) as caught:
        await entry.add(50)
    await short.sleep(caught.value.retry_after or 0)
    await short.quotas.enter([subject], 80)


async def test_request_larger_than_a_limit_is_told_that_waiting_does_not_help(quotas: Quotas) -> None:
    with pytest.raises(QuotaTooSmallError) as caught:
        await quotas.enter([key(requests_per_minute=1), model(tokens_per_day=1000)], 1001)
    assert caught.value.param == "max_tokens"
    assert "the model 'gemma' on tokens per day (TPD), 1000" in caught.value.message
    assert "smaller max_tokens" in caught.value.message
    await quotas.enter([key(requests_per_minute=1), model(tokens_per_day=1000)], 1000)


FULL = {"requests_per_minute": 1, "max_in_flight": 1}


@pytest.mark.parametrize("also_full", [key(**FULL), key(**FULL, tokens_per_minute=10)])
async def test_request_larger_than_a_limit_is_told_so_also_while_other_limits_are_full(
    quotas: Quotas, also_full: Subject
) -> None:
    subjects = [also_full, model(tokens_per_day=1000)]
    await quotas.enter(subjects, 10)
    await refused(quotas, subjects, 10)
    with pytest.raises(QuotaTooSmallError):
        await quotas.enter(subjects, 1001)


async def test_requests_at_once_are_counted_until_they_end(quotas: Quotas) -> None:
    entries = [await quotas.enter([key(max_in_flight=2)], 10) for _ in range(2)]
    error = await refused(quotas, [key(max_in_flight=2)], 10)
    assert (error.type, error.retry_after) == ("requests", 1.0)
    assert "this caller on requests at once: limit 2, used 2, requested 1. Please try again in 1s." in error.message
    entries[0].settle(10)
    entries[0].settle(10)
    await quotas.enter([key(max_in_flight=2)], 10)
    await refused(quotas, [key(max_in_flight=2)], 10)


async def test_settling_gives_back_what_was_not_used(quotas: Quotas) -> None:
    (await quotas.enter([key(tokens_per_minute=100)], 100)).settle(30)
    entry = await quotas.enter([key(tokens_per_minute=100)], 10)
    assert told(entry)["remaining-tokens"] == "60"


async def test_settling_above_the_limit_is_a_debt_that_keeps_others_waiting(quotas: Quotas) -> None:
    (await quotas.enter([key(tokens_per_minute=100)], 10)).settle(250)
    error = await refused(quotas, [key(tokens_per_minute=100)], 1)
    assert "used 250, requested 1" in error.message
    assert told(error)["remaining-tokens"] == "0"


async def test_cancelled_request_leaves_no_trace(quotas: Quotas) -> None:
    subject = key(requests_per_minute=1, tokens_per_minute=100, tokens_per_day=100, max_in_flight=1)
    entry = await quotas.enter([subject], 60)
    await entry.add(40)
    entry.cancel()
    entry.cancel()
    entry.settle(77)
    again = await quotas.enter([subject], 100)
    assert (told(again)["remaining-requests"], told(again)["remaining-tokens"]) == ("0", "0")


async def test_added_tokens_are_charged_and_settled_with_the_rest(quotas: Quotas) -> None:
    subject = key(tokens_per_minute=100)
    entry = await quotas.enter([subject], 20)
    await entry.add(50)
    assert told(entry)["remaining-tokens"] == "30"
    entry.settle(25)
    assert told(await quotas.enter([subject], 0))["remaining-tokens"] == "75"


async def test_refused_addition_gives_back_all_but_the_request(quotas: Quotas) -> None:
    subject = key(requests_per_minute=3, tokens_per_minute=100, max_in_flight=2)
    await quotas.enter([subject], 50)
    entry = await quotas.enter([subject], 20)
    with pytest.raises(RateLimitError) as caught:
        await entry.add(31)
    assert "used 50, requested 51" in caught.value.message
    entry.cancel()
    last = await quotas.enter([subject], 50)
    assert (told(last)["remaining-requests"], told(last)["remaining-tokens"]) == ("0", "0")


async def test_addition_that_never_fits_is_told_so(quotas: Quotas) -> None:
    entry = await quotas.enter([key(tokens_per_minute=100, max_in_flight=1)], 20)
    with pytest.raises(QuotaTooSmallError, match="may take 101 tokens"):
        await entry.add(81)
    await quotas.enter([key(tokens_per_minute=100, max_in_flight=1)], 100)


async def test_headers_tell_of_the_limit_with_the_least_left(quotas: Quotas) -> None:
    entry = await quotas.enter(
        [key(requests_per_minute=5, tokens_per_minute=100), model(requests_per_minute=9, tokens_per_day=50)], 20
    )
    found = told(entry)
    assert {name: found[name] for name in found if "reset" not in name} == {
        "limit-requests": "5",
        "remaining-requests": "4",
        "limit-tokens": "50",
        "remaining-tokens": "30",
    }
    assert found["reset-requests"] in ("1m0s", "1m1s")
    assert found["reset-tokens"].startswith("24h")


async def test_headers_are_absent_where_there_is_no_such_limit(quotas: Quotas) -> None:
    assert set(told(await quotas.enter([key(requests_per_minute=5)], 1))) == {
        "limit-requests",
        "remaining-requests",
        "reset-requests",
    }
    assert told(await quotas.enter([key(max_in_flight=5)], 1)) == {}


async def test_refusal_carries_headers_and_a_retry_after_that_is_not_too_short(quotas: Quotas) -> None:
    await quotas.enter([key(tokens_per_minute=100)], 90)
    found = told(await refused(quotas, [key(tokens_per_minute=100)], 20))
    assert (found["limit-tokens"], found["remaining-tokens"]) == ("100", "10")
    assert int(found["retry-after"]) * 1000 >= int(found["retry-after-ms"]) > 59_000


async def test_what_has_no_limits_costs_nothing_and_is_always_let_in(quotas: Quotas) -> None:
    entry = await quotas.enter([key(), model()], 10**12)
    await entry.add(10**12)
    entry.settle(1)
    assert entry is UNLIMITED
    assert await quotas.enter([], 1) is UNLIMITED


async def test_changed_limits_count_what_was_used_before(quotas: Quotas) -> None:
    entry = await quotas.enter([key(tokens_per_minute=100)], 80)
    assert told(await quotas.enter([key(tokens_per_minute=200)], 10))["remaining-tokens"] == "110"
    await refused(quotas, [key(tokens_per_minute=90)], 10)
    entry.settle(0)
    assert told(await quotas.enter([key(tokens_per_minute=90, tokens_per_day=99)], 10))["remaining-tokens"] == "70"


async def test_settling_spares_limits_that_came_after_the_charge(quotas: Quotas) -> None:
    before = await quotas.enter([key(tokens_per_minute=100)], 80)
    await quotas.enter([key(tokens_per_minute=100, tokens_per_day=15)], 10)
    before.settle(0)
    await refused(quotas, [key(tokens_per_day=15)], 6)


async def test_subjects_do_not_count_for_each_other(quotas: Quotas) -> None:
    await quotas.enter([key(requests_per_minute=1)], 1)
    await quotas.enter([model(requests_per_minute=1)], 1)
    await refused(quotas, [model(requests_per_minute=1)], 1)


async def test_used_tokens_are_free_again_after_the_window(short: Counted) -> None:
    subject = key(tokens_per_minute=100, requests_per_minute=1)
    late = await short.quotas.enter([subject], 100)
    await short.sleep(0.52)
    late.settle(5000)
    entry = await short.quotas.enter([subject], 100)
    assert told(entry)["remaining-tokens"] == "0"


async def test_idle_subjects_are_forgotten() -> None:
    clock = Clock()
    quotas = MemoryQuotas(clock)
    for number in range(10_000):
        clock.now += 1
        (await quotas.enter([Subject(str(number), "", Limits(tokens_per_minute=9))], 5)).settle(5)
    assert len(quotas) <= 130


async def test_subjects_are_remembered_while_requests_of_theirs_run() -> None:
    clock = Clock()
    quotas = MemoryQuotas(clock)
    await quotas.enter([key(max_in_flight=1)], 5)
    for number in range(1000):
        clock.now += 1
        (await quotas.enter([Subject(str(number), "", Limits(tokens_per_minute=9))], 5)).settle(5)
    await refused(quotas, [key(max_in_flight=1)], 1)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (17, "17ms"),
        (999, "999ms"),
        (1000, "1s"),
        (12_300, "12.3s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (60_001, "1m1s"),
        (360_000, "6m0s"),
        (86_399_001, "24h0m0s"),
    ],
)
def test_durations_read_as_openai_writes_them(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


# The plain model: what every request was charged, by time.

LIMITS = (
    Limits(requests_per_minute=4, tokens_per_minute=100, max_in_flight=3),
    Limits(tokens_per_minute=60, tokens_per_day=150),
)
SUBJECTS = tuple(Subject(str(number), f"subject {number}", limits) for number, limits in enumerate(LIMITS))
LENGTHS = {"requests_per_minute": 500_000, "tokens_per_minute": 500_000, "tokens_per_day": 1_500_000}


@dataclass
class Request:
    """One that was let in: charges (microseconds, tokens), latest last."""

    entry: Entry
    subjects: tuple[Subject, ...]
    came: int
    charges: list[list[int]]
    counts: int = 1
    runs: bool = True

    def correct(self, tokens: int) -> None:
        missing = tokens - sum(amount for _, amount in self.charges)
        for charge in reversed(self.charges):
            difference = max(missing, -charge[1])
            charge[1] += difference
            missing -= difference


@dataclass
class Model:
    """All that were let in, and whether one has used more than it was charged."""

    requests: list[Request] = field(default_factory=list)
    debt: bool = False

    def used(self, subject: Subject, name: str, now: int, length: int) -> int:
        mine = [request for request in self.requests if subject in request.subjects]
        if name == "requests_per_minute":
            return sum(request.counts for request in mine if now - length < request.came <= now)
        return sum(amount for r in mine for time, amount in r.charges if now - length < time <= now)

    def over(
        self, subjects: tuple[Subject, ...], now: int, tokens: int, slack: float, requests: int = 1
    ) -> list[tuple[str, str]]:
        """The limits that would be exceeded if windows were longer by that factor."""
        found = []
        for subject in subjects:
            for name, length in LENGTHS.items():
                limit = getattr(subject.limits, name)
                amount = requests if name == "requests_per_minute" else tokens
                if limit and amount and self.used(subject, name, now, int(length * slack)) + amount > limit:
                    found.append((subject.id, name))
            running = sum(request.runs for request in self.requests if subject in request.subjects)
            if requests and running >= (subject.limits.max_in_flight or 999):
                found.append((subject.id, "max_in_flight"))
        return found


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "enter", "add", "settle", "settle", "cancel"]),
        st.one_of(st.integers(0, 20_000), st.integers(0, 700_000)),
        st.integers(0, 70),
        st.integers(0, 5),
    ),
    max_size=40,
)


@given(OPERATIONS)
@settings(max_examples=100, deadline=None)
def test_quotas_in_memory_do_what_a_list_of_events_says(operations: list[tuple[str, int, int, int]]) -> None:
    asyncio.run(_follow(operations))


async def _follow(operations: list[tuple[str, int, int, int]]) -> None:
    clock, told_by = Clock(), Model()
    quotas = MemoryQuotas(clock, SHORT)
    micros = 1_000_000_000
    for name, since, tokens, which in operations:
        micros += since
        clock.now = micros / 1_000_000
        if name == "enter":
            await _enter(quotas, told_by, clock, tokens, (SUBJECTS, SUBJECTS[:1], SUBJECTS[1:])[which % 3])
        elif told_by.requests:
            await _change(told_by, told_by.requests[-1 - which % len(told_by.requests)], quotas.now(), name, tokens)
        _check_no_window_is_over(told_by)


async def _enter(quotas: MemoryQuotas, model: Model, clock: Clock, tokens: int, subjects: tuple[Subject, ...]) -> None:
    now = quotas.now()
    try:
        entry = await quotas.enter(subjects, tokens)
    except QuotaTooSmallError:
        assert any(tokens > (subject.limits.tokens_per_minute or 999) for subject in subjects)
    except RateLimitError as error:
        assert model.over(subjects, now, tokens, 1.0101)
        await _check_retry_after(quotas, model, clock, error, tokens, subjects)
    else:
        assert not model.over(subjects, now, tokens, 1)
        model.requests.append(Request(entry, subjects, now, [[now, tokens]]))


async def _check_retry_after(
    quotas: MemoryQuotas,
    model: Model,
    clock: Clock,
    error: RateLimitError,
    tokens: int,
    subjects: tuple[Subject, ...],
) -> None:
    """That the request is let in after that time, unless requests at once are too many, of which nobody knows."""
    then = deepcopy(quotas)
    then._clock = Clock(clock.now + (error.retry_after or 0))
    if all(name != "max_in_flight" for _, name in model.over(subjects, then.now(), tokens, 1)):
        await then.enter(subjects, tokens)


async def _change(model: Model, request: Request, now: int, name: str, tokens: int) -> None:
    charged = sum(amount for _, amount in request.charges)
    if name == "add":
        await _add(model, request, now, tokens)
        return
    used = tokens if name == "settle" else 0
    if request.runs:
        model.debt = model.debt or used > charged
        request.correct(used)
        request.counts = int(name == "settle")
        request.runs = False
    request.entry.settle(tokens) if name == "settle" else request.entry.cancel()


async def _add(model: Model, request: Request, now: int, tokens: int) -> None:
    running = request.runs
    try:
        await request.entry.add(tokens)
    except (RateLimitError, QuotaTooSmallError):
        assert running
        assert model.over(request.subjects, now, tokens, 1.0101, requests=0)
        request.correct(0)
        request.runs = False
    else:
        if running:
            assert not model.over(request.subjects, now, tokens, 1, requests=0)
            request.charges.append([now, tokens])


def _check_no_window_is_over(model: Model) -> None:
    if model.debt:
        return
    times = {time for request in model.requests for time, _ in request.charges}
    for subject in SUBJECTS:
        for name, length in LENGTHS.items():
            limit = getattr(subject.limits, name) or 10**9
            assert all(model.used(subject, name, time, length) <= limit for time in times)
