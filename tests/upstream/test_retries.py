"""Which failures another replica gets to see, and how many of them."""

from __future__ import annotations

import pytest

from gateway.errors import EngineFailedError, EngineTimeoutError, EngineUnavailableError
from gateway.settings import EngineSettings
from gateway.settings.engines import RetrySettings
from gateway.upstream.replica import Replica
from gateway.upstream.retries import Budget, Course, Outcome, outcome_of_error, outcome_of_reply

REPLIES = [
    (200, b"", None),
    (400, b"", None),
    (404, b"", None),
    (429, b"", Outcome.BUSY),
    (431, b"", None),
    (500, b"", Outcome.FAILED),
    (500, b"cannot schedule new futures after shutdown", Outcome.STOPPING),
    (502, b"", Outcome.FAILED),
    (503, b"", Outcome.BUSY),
    (503, b'{"error":{"code":"engine_unavailable"}}', Outcome.STOPPING),
    (504, b"", Outcome.FAILED),
]


@pytest.mark.parametrize(("status", "body", "outcome"), REPLIES)
def test_reply_has_its_meaning(status: int, body: bytes, outcome: Outcome | None) -> None:
    assert outcome_of_reply(status, body) is outcome


def test_error_has_its_meaning() -> None:
    errors = [EngineUnavailableError("x"), EngineFailedError("x"), EngineTimeoutError("x")]

    assert [outcome_of_error(error) for error in errors] == [Outcome.UNSENT, Outcome.BROKEN, Outcome.LATE]


@pytest.fixture
def replica() -> Replica:
    return Replica("http://127.0.0.1:1", EngineSettings(url="http://127.0.0.1:1"))


ALLOWED = [
    ([Outcome.UNSENT] * 9, 2, True),
    ([Outcome.UNSENT], 0, True),
    ([Outcome.BUSY], 0, False),
    ([Outcome.BUSY], 1, True),
    ([Outcome.BUSY, Outcome.BUSY], 1, False),
    ([Outcome.STOPPING, Outcome.BUSY], 2, True),
    ([Outcome.STOPPING, Outcome.BUSY, Outcome.STOPPING], 2, False),
    ([Outcome.BROKEN], 2, True),
    ([Outcome.BROKEN, Outcome.BROKEN], 5, False),
    ([Outcome.BROKEN, Outcome.UNSENT, Outcome.BROKEN], 5, False),
    ([Outcome.BUSY, Outcome.UNSENT], 1, True),
    ([Outcome.BUSY, Outcome.BUSY, Outcome.UNSENT], 1, False),
    ([Outcome.FAILED], 5, False),
    ([Outcome.LATE], 5, False),
]


@pytest.mark.parametrize(("outcomes", "attempts", "allowed"), ALLOWED)
def test_another_replica_is_tried_as_far_as_it_is_safe(
    replica: Replica, outcomes: list[Outcome], attempts: int, allowed: bool
) -> None:
    course = Course()
    for outcome in outcomes:
        course.note(replica, outcome, EngineFailedError("x"))

    assert course.allows_another(RetrySettings(attempts=attempts)) is allowed


def test_budget_is_a_share_of_the_requests_beyond_the_first_ten() -> None:
    budget = Budget(0.25)
    free = sum(budget.take() for _ in range(100))
    for _ in range(100):
        budget.deposit()
    earned = sum(budget.take() for _ in range(100))

    assert (free, earned) == (10, 25)


def test_budget_saves_up_no_more_than_a_hundred() -> None:
    budget = Budget(1.0)
    for _ in range(1000):
        budget.deposit()

    assert sum(budget.take() for _ in range(1000)) == 100
