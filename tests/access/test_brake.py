"""The brake: who is slowed down, after how much, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access.brake import Brake
from gateway.errors import AuthenticationError, TooManyFailuresError

WRONG = AuthenticationError("Incorrect API key provided: sk-***.")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def fail(brake: Brake, times: int, source: str = "203.0.113.7") -> list[int]:
    """The statuses of so many failures, one after another."""
    return [(await brake.answer(source, WRONG)).status for _ in range(times)]


async def test_failures_within_the_limit_are_answered_as_they_are(clock: Clock) -> None:
    brake = Brake(3, delay=0, clock=clock)
    assert [await brake.answer("203.0.113.7", WRONG) for _ in range(3)] == [WRONG] * 3


async def test_more_failures_are_answered_with_429_that_says_how_long(clock: Clock) -> None:
    brake = Brake(3, delay=0, clock=clock)
    await fail(brake, 3)
    clock.now += 20
    error = await brake.answer("203.0.113.7", WRONG)
    assert isinstance(error, TooManyFailuresError)
    assert (error.status, error.code) == (429, "too_many_authentication_failures")
    assert error.retry_after is not None
    assert WRONG.message in error.message
    # Two of the three in the first second must have left, with the one that was just counted staying.
    assert 40 <= error.retry_after <= 41


async def test_who_waits_as_long_as_told_is_answered_as_usual_again(clock: Clock) -> None:
    brake = Brake(3, delay=0, clock=clock)
    await fail(brake, 20)
    error = await brake.answer("203.0.113.7", WRONG)
    assert error.retry_after is not None
    clock.now += error.retry_after - 1
    assert await fail(Brake(3, delay=0, clock=clock), 1) == [401]
    clock.now += 1
    assert await brake.answer("203.0.113.7", WRONG) is WRONG


async def test_failures_are_forgotten_after_a_minute(clock: Clock) -> None:
    brake = Brake(2, delay=0, clock=clock)
    assert await fail(brake, 3) == [401, 401, 429]
    clock.now += 62
    assert await fail(brake, 3) == [401, 401, 429]


async def test_failures_that_keep_coming_keep_the_source_remembered(clock: Clock) -> None:
    brake = Brake(2, delay=0, clock=clock)
    await fail(brake, 3)
    for _ in range(10):
        clock.now += 20
        assert await fail(brake, 2) == [429, 429]


async def test_sources_are_counted_apart(clock: Clock) -> None:
    brake = Brake(1, delay=0, clock=clock)
    assert await fail(brake, 2) == [401, 429]
    assert await fail(brake, 1, "198.51.100.1") == [401]


async def test_limit_of_zero_is_none(clock: Clock) -> None:
    assert await fail(Brake(0, clock=clock), 1000) == [401] * 1000


async def test_sources_that_are_remembered_are_bounded(clock: Clock) -> None:
    brake = Brake(1, delay=0, clock=clock)
    for number in range(10_050):
        await brake.answer(str(number), WRONG)
    assert len(brake._windows) == 10_000


async def test_answers_over_the_limit_are_held_back_without_holding_others(clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    brake = Brake(1, delay=0.1, clock=clock)
    await fail(brake, 1)
    begun = loop.time()
    held = asyncio.create_task(brake.answer("203.0.113.7", WRONG))
    assert await fail(brake, 1, "198.51.100.1") == [401]
    assert loop.time() - begun < 0.1
    assert (await held).status == 429
    assert loop.time() - begun >= 0.1


async def test_no_more_than_64_answers_are_held_at_once(clock: Clock) -> None:
    brake = Brake(1, delay=0.2, clock=clock)
    await fail(brake, 1)
    tasks = [asyncio.create_task(brake.answer("203.0.113.7", WRONG)) for _ in range(100)]
    await asyncio.sleep(0.05)
    assert (brake.held, sum(task.done() for task in tasks)) == (64, 36)
    await asyncio.gather(*tasks)
    assert brake.held == 0


async def test_client_that_leaves_is_held_no_longer(clock: Clock) -> None:
    brake = Brake(1, delay=10, clock=clock)
    await fail(brake, 1)
    task = asyncio.create_task(brake.answer("203.0.113.7", WRONG))
    await asyncio.sleep(0)
    assert brake.held == 1
    task.cancel()
    await asyncio.wait([task])
    assert brake.held == 0
