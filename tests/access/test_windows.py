"""Sliding windows: strict, hardly wasteful, and right about how long to wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.windows import SLOTS, Window, corrections

SLOT = 10_000
LENGTH = SLOT * SLOTS

#: Microseconds since the step before, and an amount.
STEPS = st.lists(
    st.tuples(st.one_of(st.integers(0, 3 * SLOT), st.integers(0, 3 * LENGTH)), st.integers(0, 50)), max_size=60
)
Event = tuple[int, int]


def events_of(steps: list[Event]) -> list[Event]:
    """The same with the time of each."""
    now, events = 1_234_567, []
    for since, amount in steps:
        now += since
        events.append((now, amount))
    return events


def within(events: list[Event], now: int, length: int) -> int:
    """What was charged in the time of that length that ends now."""
    return sum(amount for time, amount in events if now - length < time <= now)


def filled(events: list[Event], limit: int) -> tuple[Window, list[Event]]:
    """A window that was charged with what fits of those events, and these."""
    window, charged = Window(SLOT), []
    for now, amount in events:
        if window.used(now) + amount <= limit:
            window.charge(now, amount)
            charged.append((now, amount))
    return window, charged


@given(STEPS)
def test_everything_of_the_last_window_counts_and_nothing_older_than_a_hundredth_more(steps: list[Event]) -> None:
    window, events = Window(SLOT), events_of(steps)
    for index, (now, amount) in enumerate(events, 1):
        window.charge(now, amount)
        assert within(events[:index], now, LENGTH) <= window.used(now) <= within(events[:index], now, LENGTH + SLOT)


@given(STEPS, st.integers(50, 120))
def test_limit_is_never_exceeded_in_any_window(steps: list[Event], limit: int) -> None:
    _, charged = filled(events_of(steps), limit)
    assert all(within(charged, time, LENGTH) <= limit for time, _ in charged)


@given(STEPS, st.integers(50, 120), st.integers(1, 50))
def test_what_waits_as_long_as_it_is_told_fits_and_not_a_moment_sooner(
    steps: list[Event], limit: int, amount: int
) -> None:
    events = events_of(steps) or [(0, 0)]
    window, _ = filled(events, limit)
    now = events[-1][0]
    wait = window.wait(now, amount, limit)
    if wait:
        assert window.used(now + wait - 1) + amount > limit
    assert window.used(now + wait) + amount <= limit


@given(STEPS)
def test_nothing_is_used_any_more_after_the_time_until_it_is_empty(steps: list[Event]) -> None:
    events = events_of(steps) or [(0, 0)]
    window, _ = filled(events, 10**9)
    now = events[-1][0]
    left = window.empty_in(now)
    if left:
        assert window.used(now + left - 1) > 0
    assert window.used(now + left) == 0


def test_slot_counts_until_all_of_it_has_left() -> None:
    window = Window(SLOT)
    window.charge(SLOT - 1, 5)
    assert window.used(SLOT + LENGTH - 1) == 5
    assert window.used(SLOT + LENGTH) == 0


def test_correction_changes_what_still_counts_and_nothing_that_has_left() -> None:
    window = Window(SLOT)
    window.charge(0, 10)
    window.adjust(0, -4)
    assert window.used(0) == 6
    window.charge(2 * LENGTH, 3)
    window.used(2 * LENGTH)
    window.adjust(0, 100)
    assert window.used(2 * LENGTH) == 3


def test_memory_is_bounded_by_the_slots_however_much_is_charged() -> None:
    window = Window(SLOT)
    for now in range(0, 10 * LENGTH, SLOT // 4):
        window.used(now)
        window.charge(now, 1)
    assert len(window.amounts) <= SLOTS + 1


def test_too_much_goes_back_to_the_latest_charge_first() -> None:
    assert corrections([(1, 100), (2, 50), (3, 20)], 110) == [(3, -20), (2, -40), (1, 0)]


def test_what_is_missing_is_added_to_the_latest_charge() -> None:
    assert corrections([(1, 100), (2, 50)], 190) == [(2, 40), (1, 0)]
    assert corrections([(1, 100)], 130) == [(1, 30)]


@given(st.lists(st.tuples(st.integers(), st.integers(0, 1000)), min_size=1, max_size=5), st.integers(0, 5000))
def test_corrected_charges_are_the_true_amount_and_none_is_negative(charges: list[Event], amount: int) -> None:
    corrected = [
        charged + difference
        for (_, charged), (_, difference) in zip(reversed(charges), corrections(charges, amount), strict=True)
    ]
    assert sum(corrected) == amount
    assert min(corrected) >= 0
