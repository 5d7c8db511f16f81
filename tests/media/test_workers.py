"""Decoding in processes: bounded in time and number, and a worker that dies costs one request."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import MediaError, MediaTooLargeError, OverloadedError
from gateway.media.workers import Workers
from gateway.metrics import Metrics
from gateway.settings import MediaSettings, Modality


def _echo(data: bytes) -> tuple[int, bytes]:
    return os.getpid(), data


def _large(size: int) -> tuple[int, bytes]:
    """A large result, on top of buffers of many sizes that were needed for it."""
    for part in range(1, 20):
        bytearray(size * part // 20)
    return os.getpid(), bytes(size)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _refuse(data: bytes) -> None:
    raise MediaTooLargeError("it is too large", param="here", code="some_code")


def _hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def _crash(data: bytes) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _take(size: int) -> int:
    return len(bytearray(size))


def _outputs() -> list[str]:
    return [str(Path(f"/proc/self/fd/{stream}").readlink()) for stream in (1, 2)]


@asynccontextmanager
async def pool(metrics: Metrics | None = None, **limits: float) -> AsyncIterator[Workers]:
    workers = Workers(MediaSettings.model_validate({"decode_workers": 1, **limits}), metrics or Metrics())
    try:
        yield workers
    finally:
        await workers.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_work_is_done_in_another_process_which_gives_way_to_this_one() -> None:
    async with pool() as workers:
        pid, data = await workers.run(Modality.IMAGE, _echo, b"x" * 5_000_000)

        assert (pid != os.getpid(), len(data)) == (True, 5_000_000)
        assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


async def test_large_results_leave_nothing_behind() -> None:
    """Just below 32 MiB, up to which glibc would keep what was freed."""
    async with pool() as workers:
        pid, _ = await workers.run(Modality.AUDIO, _echo, b"")
        before = _resident(pid)
        for megabytes in (20, 30, 25, 31):
            await workers.run(Modality.AUDIO, _large, megabytes << 20)

        await until(lambda: _resident(pid) - before < 8 << 20)


async def test_a_refusal_comes_back_as_it_was_raised() -> None:
    async with pool() as workers:
        with pytest.raises(MediaTooLargeError) as fault:
            await workers.run(Modality.IMAGE, _refuse, b"")

    assert (fault.value.message, fault.value.param, fault.value.code) == ("it is too large", "here", "some_code")


async def test_work_over_its_time_is_ended_and_the_next_is_done(tmp_path: Path) -> None:
    async with pool(decode_seconds=0.5) as workers:
        with pytest.raises(MediaTooLargeError, match=r"longer than 0\.5 seconds \(media\.decode_seconds\)"):
            await workers.run(Modality.VIDEO, _hang, str(tmp_path / "pid"))

        assert (await workers.run(Modality.VIDEO, _echo, b"next"))[1] == b"next"
    assert is_gone(int((tmp_path / "pid").read_text()))


async def test_a_crash_is_the_files_fault_and_the_next_is_done() -> None:
    async with pool() as workers:
        with pytest.raises(MediaError, match="corrupt"):
            await workers.run(Modality.AUDIO, _crash, b"")

        assert (await workers.run(Modality.AUDIO, _echo, b"next"))[1] == b"next"


async def test_memory_of_a_worker_is_bounded() -> None:
    async with pool() as workers:
        with pytest.raises(MediaTooLargeError, match="memory"):
            await workers.run(Modality.IMAGE, _take, 8 << 30)

        assert await workers.run(Modality.IMAGE, _take, 1 << 20) == 1 << 20


async def test_what_decoders_print_of_a_file_does_not_reach_the_log() -> None:
    async with pool() as workers:
        assert await workers.run(Modality.AUDIO, _outputs) == ["/dev/null", "/dev/null"]


async def test_nobody_waiting_ends_the_work(tmp_path: Path) -> None:
    metrics = Metrics()
    async with pool(metrics) as workers:
        task = asyncio.create_task(workers.run(Modality.IMAGE, _hang, str(tmp_path / "pid")))
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        assert metrics.decodes_waiting._value.get() == 1

        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        await until(lambda: is_gone(int((tmp_path / "pid").read_text())))
        assert metrics.decodes_waiting._value.get() == 0
        assert (await workers.run(Modality.IMAGE, _echo, b"next"))[1] == b"next"


async def test_more_waiting_than_the_limit_is_refused_at_once(tmp_path: Path) -> None:
    async with pool(max_decodes_waiting=1) as workers:
        task = asyncio.create_task(workers.run(Modality.IMAGE, _hang, str(tmp_path / "pid")))
        await asyncio.sleep(0)

        with pytest.raises(OverloadedError, match=r"max_decodes_waiting") as fault:
            await workers.run(Modality.IMAGE, _echo, b"")

        assert fault.value.retry_after
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_time_of_decoding_is_measured_by_modality() -> None:
    metrics = Metrics()
    async with pool(metrics) as workers:
        await workers.run(Modality.AUDIO, _echo, b"")

    assert metrics.registry.get_sample_value("gemma_gateway_media_decode_seconds_count", {"modality": "audio"}) == 1
