"""The usage log has a whole line for every request, whatever becomes of the disk, the file or the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from gateway.errors import ConfigurationError
from gateway.settings import UsageSettings
from gateway.usage_log import INTERVAL, KEPT, Finish, UsageLog, UsageRecord
from gateway.usage_log.file import LinesFile

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

#: Writes a record every 2 ms and says so.
ENDLESS_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.settings import UsageSettings
from gateway.usage_log import Finish, UsageLog, UsageRecord

async def main() -> None:
    log = UsageLog(UsageSettings(file=Path(sys.argv[1]), max_bytes=20_000, max_files=100), lambda count: None)
    for number in range(100_000):
        now = datetime.now(UTC)
        log.write(UsageRecord(time=now, request_id=str(number), path="/", status=200, finish=Finish.COMPLETE))
        print(number, now.timestamp(), flush=True)
        await asyncio.sleep(0.002)

asyncio.run(main())
"""

#: Writes more records than the limit on its files allows, then again with more room.
FULL_DISK = """
import asyncio, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.settings import UsageSettings
from gateway.usage_log import Finish, UsageLog, UsageRecord

async def main() -> None:
    faults = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
    log = UsageLog(UsageSettings(file=Path(sys.argv[1])), faults.append)
    for number in range(100):
        now = datetime.now(UTC)
        log.write(UsageRecord(time=now, request_id=str(number), path="/", status=200, finish=Finish.COMPLETE))
    await asyncio.sleep(0.8)
    print(Path(sys.argv[1]).read_bytes().count(b"\\n"), Path(sys.argv[1]).read_bytes()[-2:] == b"}\\n", sum(faults))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await log.aclose()

asyncio.run(main())
"""


def ignore(count: int) -> None:
    """For tests without faults."""


def record(number: int = 0, **fields: object) -> UsageRecord:
    sample = UsageRecord(time=NOON, request_id=str(number), path="/v1/x", status=200, finish=Finish.COMPLETE)
    return msgspec.structs.replace(sample, **fields)


def ids(*files: Path) -> list[int]:
    """The records in those files, each line a whole one."""
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    assert all(line.endswith(b"}\n") for line in lines)
    return [int(msgspec.json.decode(line, type=UsageRecord).request_id) for line in lines]


def by_age(file: Path) -> list[Path]:
    """The file and those set aside, the oldest first."""
    aside = [path for path in file.parent.iterdir() if path.name.startswith(f"{file.name}.")]
    return [*sorted(aside, key=lambda path: -int(path.suffix[1:])), file]


@contextlib.asynccontextmanager
async def usage_log(file: Path, on_fault: Callable[[int], None] = ignore, **settings: int) -> AsyncIterator[UsageLog]:
    log = UsageLog(UsageSettings.model_validate({"file": file, **settings}), on_fault)
    try:
        yield log
    finally:
        await log.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_line_says_what_is_not_the_default(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file) as log:
        log.write(record(7, model="gemma", stream=True, finish=Finish.ABORTED, estimated=True, queue_seconds=0.25))
    assert json.loads(file.read_text()) == {
        "time": "2026-01-02T12:00:00Z",
        "request_id": "7",
        "model": "gemma",
        "path": "/v1/x",
        "status": 200,
        "finish": "aborted",
        "stream": True,
        "estimated": True,
        "queue_seconds": 0.25,
    }


async def test_records_are_in_the_file_within_half_a_second(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file) as log:
        log.write(record(1))
        log.write(record(2))
        began = time.monotonic()
        await until(lambda: ids(file) == [1, 2])
        assert time.monotonic() - began < 0.5


async def test_closing_writes_all_that_is_left_and_a_later_record_too(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file) as log:
        for number in range(2500):
            log.write(record(number))
        await log.aclose()
        assert ids(file) == list(range(2500))
        log.write(record(2500))
    assert ids(file) == list(range(2501))


async def test_the_file_is_for_the_owner_and_the_group_alone(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    before = os.umask(0)
    try:
        async with usage_log(file):
            assert stat.S_IMODE(file.stat().st_mode) == 0o640
    finally:
        os.umask(before)


async def test_text_that_is_no_unicode_spoils_no_line(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file) as log:
        log.write(record(1, key_name="half \ud800 pair"))
        log.write(record(2))
    assert ids(file) == [1, 2]
    assert "half ? pair" in file.read_text()


async def test_full_files_are_numbered_and_only_so_many_kept(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    size = len(msgspec.json.encode(record(100))) + 1
    async with usage_log(file, max_bytes=10 * size, max_files=3) as log:
        for number in range(100, 145):
            log.write(record(number))
    assert [path.name for path in by_age(file)] == ["usage.jsonl.2", "usage.jsonl.1", "usage.jsonl"]
    assert [len(ids(path)) for path in by_age(file)] == [10, 10, 5]
    assert ids(*by_age(file)) == list(range(120, 145))


async def test_a_single_file_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    size = len(msgspec.json.encode(record(100))) + 1
    async with usage_log(file, max_bytes=10 * size, max_files=1) as log:
        for number in range(100, 125):
            log.write(record(number))
    assert ids(*by_age(file)) == list(range(120, 125))


async def test_fewer_files_than_before_are_kept_once_the_number_is_lowered(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    for number in range(1, 8):
        file.with_name(f"usage.jsonl.{number}").write_text("{}\n")
    async with usage_log(file, max_bytes=1, max_files=3) as log:
        log.write(record(1))
        log.write(record(2))
    assert [path.name for path in by_age(file)] == ["usage.jsonl.2", "usage.jsonl.1", "usage.jsonl"]


async def test_a_line_longer_than_a_file_may_be_has_one_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file, max_bytes=300, max_files=8) as log:
        for number, user in enumerate(("", "x" * 1000, "")):
            log.write(record(number, user=user))
    assert [ids(path) for path in by_age(file)] == [[0], [1], [2]]


async def test_a_file_renamed_by_an_operator_is_made_anew(tmp_path: Path) -> None:
    file, aside = tmp_path / "usage.jsonl", tmp_path / "usage.jsonl-20260102"
    async with usage_log(file) as log:
        log.write(record(1))
        await until(lambda: ids(file) == [1])
        file.rename(aside)
        log.write(record(2))
    assert (ids(aside), ids(file)) == ([1], [2])


async def test_a_file_emptied_by_an_operator_has_no_hole(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    async with usage_log(file) as log:
        log.write(record(1))
        await until(lambda: ids(file) == [1])
        os.truncate(file, 0)
        log.write(record(2))
    assert ids(file) == [2]


async def test_a_line_that_a_writer_was_killed_in_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    file.write_text('{"time":"2026-')
    async with usage_log(file) as log:
        log.write(record(1))
    torn, whole = file.read_text().splitlines()
    assert (torn, json.loads(whole)["request_id"]) == ('{"time":"2026-', "1")


async def test_two_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    one, other = (LinesFile(file, max_bytes=100, max_files=1000) for _ in range(2))

    def append(lines: LinesFile, start: int) -> None:
        for number in range(start, start + 300):
            while not lines.append(b'{"number":%d}\n' % number):
                pass

    await asyncio.gather(asyncio.to_thread(append, one, 0), asyncio.to_thread(append, other, 300))
    one.close()
    other.close()
    numbers = [json.loads(line)["number"] for path in by_age(file) for line in path.read_text().splitlines()]
    assert sorted(numbers) == list(range(600))


async def test_records_outlast_a_folder_that_vanishes(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    faults: list[int] = []
    async with usage_log(folder / "usage.jsonl", faults.append) as log:
        (folder / "usage.jsonl").unlink()
        folder.rmdir()
        log.write(record(1))
        await until(lambda: faults == [1])
        log.write(record(2))
        log.write(record(3))
        await until(lambda: sum(faults) == 3)
        await asyncio.sleep(2 * INTERVAL)
        assert sum(faults) == 3, "a record counts once, however often it is tried"
        folder.mkdir()
    assert ids(folder / "usage.jsonl") == [1, 2, 3]


async def test_no_more_records_are_kept_than_memory_has_room_for(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    faults: list[int] = []
    async with usage_log(folder / "usage.jsonl", faults.append) as log:
        (folder / "usage.jsonl").unlink()
        folder.rmdir()
        same = record(1)
        for _ in range(KEPT + 10):
            log.write(same)
        await until(lambda: sum(faults) == KEPT + 10)
        folder.mkdir()
    assert len(ids(folder / "usage.jsonl")) == KEPT


def test_a_full_disk_leaves_whole_lines_and_the_rest_follows_when_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    child = subprocess.run([sys.executable, "-c", FULL_DISK, file], capture_output=True, text=True, timeout=30)
    written, whole, faults = child.stdout.split()
    assert (whole, int(written) + int(faults)) == ("True", 100)
    assert 0 < int(written) < 100
    assert ids(file) == list(range(100))


def test_a_sigkill_loses_at_most_the_last_second(tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    with subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, file], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1.6)
        killed = datetime.now(UTC)
        child.send_signal(signal.SIGKILL)
        said = [line.split() for line in child.stdout.read().splitlines()]
    due = {int(number) for number, at in said if float(at) < (killed - timedelta(seconds=1)).timestamp()}
    kept = ids(*by_age(file))
    assert len(due) > 50
    assert due - set(kept) == set()
    assert kept == list(range(len(kept)))


def test_a_folder_that_is_not_there_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"mkdir -p {tmp_path}/none"):
        UsageLog(UsageSettings(file=tmp_path / "none" / "usage.jsonl"), ignore)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_with_the_fix(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match=rf"chown -R {os.geteuid()} {tmp_path}"):
        UsageLog(UsageSettings(file=tmp_path / "usage.jsonl"), ignore)


def test_a_path_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"usage\.file"):
        UsageLog(UsageSettings(file=Path("/dev/null")), ignore)


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"set usage\.file"):
        UsageLog(UsageSettings(), ignore)


async def test_writing_a_record_takes_less_than_two_microseconds(tmp_path: Path) -> None:
    async with usage_log(tmp_path / "usage.jsonl") as log:
        one, count = record(1), 10_000
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(count):
                log.write(one)
            best = min(best, time.process_time() - began)
    assert best / count < 2e-6
