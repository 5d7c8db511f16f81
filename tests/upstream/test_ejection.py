"""A replica that fails is left out, tried once, and taken back."""

from __future__ import annotations

from gateway.settings.engines import EjectionSettings
from gateway.upstream.ejection import Ejection

SETTINGS = EjectionSettings(failures=3, seconds=5, max_seconds=12)


def ejected(now: float = 0.0) -> Ejection:
    ejection = Ejection(SETTINGS)
    for _ in range(SETTINGS.failures):
        ejection.failed(now)
    return ejection


def test_failures_in_a_row_eject() -> None:
    ejection = Ejection(SETTINGS)

    assert [ejection.failed(0.0) for _ in range(3)] == [False, False, True]
    assert not ejection.admits(4.9)


def test_success_in_between_starts_the_count_anew() -> None:
    ejection = Ejection(SETTINGS)
    ejection.failed(0.0)
    ejection.failed(0.0)
    ejection.succeeded(0.0)

    assert [ejection.failed(0.0) for _ in range(3)] == [False, False, True]


def test_one_trial_at_a_time_once_the_time_is_over() -> None:
    ejection = ejected()

    assert ejection.admits(5.0)
    assert ejection.begin_trial(5.0)
    assert not ejection.admits(5.0)
    assert not ejection.begin_trial(5.0)


def test_no_trial_while_ejected_or_sound() -> None:
    assert not ejected().begin_trial(4.9)
    assert not Ejection(SETTINGS).begin_trial(0.0)


def test_good_trial_restores() -> None:
    ejection = ejected()
    ejection.begin_trial(5.0)

    assert ejection.succeeded(6.0)
    assert ejection.admits(6.0)
    assert not ejection.troubled


def test_failed_trials_double_the_time_up_to_the_longest() -> None:
    ejection = ejected()
    ends = [ejection.until]
    for _ in range(3):
        ejection.begin_trial(ends[-1])
        assert ejection.failed(ends[-1])
        ends.append(ejection.until)

    assert ends == [5, 5 + 10, 5 + 10 + 12, 5 + 10 + 12 + 12]


def test_ejection_after_a_restoration_is_short_again() -> None:
    ejection = ejected()
    ejection.failed(5.0)
    ejection.succeeded(15.0)
    for _ in range(3):
        ejection.failed(20.0)

    assert ejection.until == 25


def test_what_began_before_the_ejection_changes_nothing() -> None:
    ejection = ejected()

    assert not ejection.failed(1.0)
    assert not ejection.succeeded(1.0)
    assert ejection.until == 5


def test_trial_that_nobody_waited_for_is_given_back() -> None:
    ejection = ejected()
    ejection.begin_trial(5.0)

    ejection.end_trial()

    assert ejection.admits(5.0)


def test_it_can_fail_for_ever() -> None:
    ejection = ejected()
    for _ in range(2000):
        ejection.failed(ejection.until)

    assert ejection.until == 5 + 10 + 12 * 1999
