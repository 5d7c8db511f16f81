"""What has ended is counted and logged in portions, so that requests do not wait for it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.accounting import AT_ONCE, PERIOD, Accounting, KeyLabels
from gateway.api.observation import Observation
from gateway.logs.access import AccessLog
from gateway.metrics import Metrics
from gateway.settings import LogSettings

COUNT = 5 * AT_ONCE + 3


def lines(captured: pytest.CaptureFixture[str]) -> int:
    return captured.readouterr().err.count("request_id=")


def accounting() -> Accounting:
    return Accounting(Metrics(), KeyLabels(10), None, None, AccessLog(LogSettings(), on=True))


async def test_between_two_portions_the_loop_sees_to_others(capsys: pytest.CaptureFixture[str]) -> None:
    books = accounting()
    portions: list[int] = []
    for _ in range(COUNT):
        books.close(Observation("/v1/chat/completions"))

    async with asyncio.timeout(20 * PERIOD + 5):
        while sum(portions) < COUNT:
            portions.append(lines(capsys))
            await asyncio.sleep(0)

    assert max(portions) <= AT_ONCE
    assert sum(portions) == COUNT


async def test_a_whole_portion_is_written_as_soon_as_a_request_waits_for_its_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    books = accounting()
    for _ in range(AT_ONCE + 1):
        books.close(Observation("/v1/chat/completions"))

    books.while_waiting()
    assert lines(capsys) == 0, "the request is sent first"
    await asyncio.sleep(0)
    assert lines(capsys) == AT_ONCE
    books.while_waiting()
    await asyncio.sleep(0)
    assert lines(capsys) == 0, "the rest waits for more, or for its time"

    async with asyncio.timeout(20 * PERIOD + 5):
        while not lines(capsys):
            await asyncio.sleep(PERIOD / 5)
    books.close(Observation("/v1/chat/completions"))
    async with asyncio.timeout(20 * PERIOD + 5):
        while not lines(capsys):
            await asyncio.sleep(PERIOD / 5)


async def test_whoever_looks_at_the_figures_sees_all_that_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    books = accounting()
    for _ in range(COUNT):
        books.close(Observation("/v1/chat/completions"))

    books.flush()

    assert lines(capsys) == COUNT
