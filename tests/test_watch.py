"""What is watched is read anew when it changes, and every fault is told and counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from prometheus_client import CollectorRegistry, Counter

from gateway.errors import ConfigurationError
from gateway.watch import Watched, watch


class File:
    """Something with a version, whose reading fails with `fault` while there is one."""

    def __init__(self) -> None:
        self.version = 1
        self.read = 0
        self.fault: Exception | None = None

    def fingerprint(self) -> int:
        return self.version

    async def reload(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.read += 1


@pytest.fixture
def file() -> File:
    return File()


@pytest.fixture
def watched(file: File) -> Watched:
    counter = Counter("reloads", "Reloads.", ["what", "outcome"], registry=CollectorRegistry())
    return Watched("configuration", file.fingerprint, file.reload, counter)


def counted(watched: Watched, outcome: str) -> float:
    return next(
        (
            sample.value
            for sample in next(iter(watched.counter.collect())).samples
            if sample.name == "reloads_total" and sample.labels["outcome"] == outcome
        ),
        0,
    )


async def test_what_has_not_changed_is_not_read(file: File, watched: Watched) -> None:
    await watched.look()

    assert (file.read, counted(watched, "ok")) == (0, 0)


async def test_change_is_read_once(file: File, watched: Watched) -> None:
    file.version = 2
    await watched.look()
    await watched.look()

    assert (file.read, counted(watched, "ok"), watched.fault) == (1, 1, None)


async def test_what_was_refused_is_tried_again_and_its_fault_told_once(
    file: File, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    file.version, file.fault = 2, ConfigurationError("there is no key file yet")
    for _ in range(30):
        await watched.look()
    refused = counted(watched, "error"), caplog.text.count("no key file yet")

    file.fault = None
    for _ in range(10):
        await watched.look()

    assert refused == (1, 1)
    assert (file.read, counted(watched, "ok"), watched.fault) == (1, 1, None)


@pytest.mark.parametrize(
    ("fault", "told"),
    [(ConfigurationError("no engine"), "no engine"), (ValueError("day is out of range"), "ValueError: day is out of")],
)
async def test_every_fault_is_told_and_counted_until_a_reading_succeeds(
    file: File, watched: Watched, fault: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.version, file.fault = 2, fault
    await watched.look()
    during = watched.fault
    file.version, file.fault = 3, None
    await watched.look()

    assert during is not None
    assert during.startswith(told)
    assert "new configuration not taken over" in caplog.text
    assert (watched.fault, counted(watched, "error"), counted(watched, "ok")) == (None, 1, 1)


async def test_log_says_what_was_taken_over(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.watch"):
        await watched.read()

    assert caplog.messages == ["new configuration taken over"]


async def test_watching_goes_on_after_a_fault(file: File, watched: Watched) -> None:
    task = asyncio.create_task(watch([watched]))
    file.version, file.fault = 2, OSError("gone")
    async with asyncio.timeout(3):
        while watched.fault is None:
            await asyncio.sleep(0.01)
        file.version, file.fault = 3, None
        while watched.fault is not None:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert file.read == 1
