"""Requests wait for a replica in order, in a bounded number and for a bounded time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import EngineUnavailableError
from gateway.settings.engines import HoldSettings
from gateway.upstream.hold import Hold


def soon(seconds: float = 1.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_those_who_wait_go_in_the_order_in_which_they_came() -> None:
    hold = Hold(HoldSettings())
    gone: list[int] = []

    async def wait(number: int) -> None:
        await hold.wait(soon())
        gone.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert len(hold) == 5
    hold.release()
    await asyncio.gather(*waiting)

    assert gone == [0, 1, 2, 3, 4]
    assert len(hold) == 0


async def test_time_that_is_over_is_an_error() -> None:
    hold = Hold(HoldSettings())

    with pytest.raises(EngineUnavailableError, match="in time"):
        await hold.wait(soon(0.01))

    assert len(hold) == 0


async def test_no_time_at_all_is_an_error_at_once() -> None:
    with pytest.raises(EngineUnavailableError):
        await Hold(HoldSettings()).wait(soon(0))


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    hold = Hold(HoldSettings(max_requests=1))
    first = asyncio.create_task(hold.wait(soon()))
    await asyncio.sleep(0)

    with pytest.raises(EngineUnavailableError):
        await hold.wait(soon())

    hold.release()
    await first


async def test_one_who_leaves_makes_room() -> None:
    hold = Hold(HoldSettings(max_requests=1))
    first = asyncio.create_task(hold.wait(soon()))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    second = asyncio.create_task(hold.wait(soon()))
    await asyncio.sleep(0)
    hold.release()

    await second
    assert len(hold) == 0


async def test_one_who_leaves_while_being_released_is_cancelled() -> None:
    hold = Hold(HoldSettings())
    task = asyncio.create_task(hold.wait(soon()))
    await asyncio.sleep(0)
    hold.release()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
