"""Supervision, with small Python programs in the place of engine and gateway."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.engine.service import Command, GaveUpError, History, Timing, ending, verdict
from gateway.engine.supervisor import Output, Supervisor
from gateway.launcher import group_members

QUICK = Timing(first_backoff=0.02, max_backoff=0.1, max_failures=3, poll=0.02, report=0.1, stop_margin=5)

#: Each program gets a folder, in which a file `NAME.ready` says that it is ready, and a log of what happened.
PRELUDE = """
import pathlib, signal, subprocess, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
ready = folder / f"{name}.ready"
def log(what):
    with (folder / "log").open("a") as file:
        file.write(f"{name} {what}\\n")
def stop(*_):
    log("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
"""
WORKS = "log('started'); ready.touch(); time.sleep(60)"
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready.touch(); time.sleep(60)"
NEVER_READY = "log('started'); sys.exit(1)"
MISCONFIGURED = "log('started'); sys.exit(2)"
DIES_ONCE = """
first = not (folder / f"{name}.lived").exists()
(folder / f"{name}.lived").touch()
log('started'); ready.touch()
time.sleep(0.2 if first else 60)
ready.unlink()
sys.exit(3)
"""
HAS_A_WORKER = """
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(folder / "worker").write_text(str(worker.pid))
ready.touch(); time.sleep(0.2); ready.unlink(); sys.exit(2)
"""
SLOW = "time.sleep(0.35); ready.touch(); time.sleep(60)"


@dataclass
class Stage:
    """A supervisor of two programs, and everything it said."""

    folder: Path
    said: list[str] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)

    def supervisor(self, engine: str, gateway: str = WORKS, timing: Timing = QUICK, drain: float = 5) -> Supervisor:
        output = Output(self.said.append, self.announced.append)
        commands = self.command("engine", engine), self.command("gateway", gateway)
        return Supervisor(*commands, output, example="curl it", drain_seconds=drain, timing=timing)

    def command(self, name: str, program: str) -> Command:
        async def ready() -> bool:
            return (self.folder / f"{name}.ready").exists()

        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(self.folder), name]
        return Command(name, argv, ready)

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def running(stage: Stage, supervisor: Supervisor) -> asyncio.Task[int]:
    """The supervisor's run, once it has said that it is ready."""
    task = asyncio.create_task(supervisor.run())
    await until(lambda: bool(stage.announced))
    return task


async def test_ready_line_is_announced_once_with_the_example(stage: Stage) -> None:
    supervisor = stage.supervisor(WORKS)
    task = await running(stage, supervisor)
    supervisor.stop()
    assert await task == 0
    assert stage.announced == ["Ready in 0 s: curl it"]


async def test_gateway_stops_before_the_engine(stage: Stage) -> None:
    supervisor = stage.supervisor(WORKS)
    task = await running(stage, supervisor)
    supervisor.stop()
    assert await task == 0
    assert stage.log[-2:] == ["gateway stopped", "engine stopped"]


async def test_sigterm_to_the_supervisor_stops_both(stage: Stage) -> None:
    task = await running(stage, stage.supervisor(WORKS))
    signal.raise_signal(signal.SIGTERM)
    assert await task == 0
    assert stage.log[-2:] == ["gateway stopped", "engine stopped"]


async def test_progress_is_said_while_the_engine_loads(stage: Stage) -> None:
    supervisor = stage.supervisor(SLOW)
    task = await running(stage, supervisor)
    supervisor.stop()
    await task
    assert "engine: loading, 0 s" in stage.said


@pytest.mark.parametrize("name", ["engine", "gateway"])
async def test_service_that_dies_is_started_again(stage: Stage, name: str) -> None:
    supervisor = stage.supervisor(**{"engine": WORKS, "gateway": WORKS, name: DIES_ONCE})  # type: ignore[arg-type]
    task = await running(stage, supervisor)
    await until(lambda: "ready again" in stage.said)
    supervisor.stop()
    assert await task == 0
    assert f"{name}: exited with code 3; starting it again in 0.02 s" in stage.said
    assert stage.log.count(f"{name} started") == 2
    assert len(stage.announced) == 1


async def test_engine_that_is_never_ready_is_given_up_with_the_cause(stage: Stage) -> None:
    assert await stage.supervisor(NEVER_READY).run() == 1
    assert stage.log.count("engine started") == 3
    assert stage.said[-1] == (
        "engine: exited with code 1 before it was ready, 3 times in a row; the cause stands above"
    )


async def test_configuration_that_cannot_run_is_not_tried_again(stage: Stage) -> None:
    assert await stage.supervisor(MISCONFIGURED).run() == 2
    assert stage.log.count("engine started") == 1


async def test_workers_of_a_dead_engine_do_not_linger(stage: Stage) -> None:
    supervisor = stage.supervisor(HAS_A_WORKER)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.engine.pid is not None)
    group = supervisor.engine.pid
    assert group
    await until((stage.folder / "worker").exists)
    await task
    await until(lambda: group_members(group) == [])


async def test_service_that_ignores_sigterm_is_killed_after_its_time(stage: Stage) -> None:
    timing = Timing(poll=0.02, stop_margin=0.1)
    supervisor = stage.supervisor(IGNORES_SIGTERM, timing=timing, drain=0.1)
    task = await running(stage, supervisor)
    supervisor.stop()
    assert await task == 0
    assert "engine: still there after 0.2 s; killing it" in stage.said


async def test_second_signal_ends_everything_at_once(stage: Stage) -> None:
    supervisor = stage.supervisor(IGNORES_SIGTERM, IGNORES_SIGTERM, drain=60)
    task = await running(stage, supervisor)
    supervisor.stop()
    await asyncio.sleep(0.1)
    supervisor.stop()
    async with asyncio.timeout(5):
        assert await task == 0


async def test_stop_while_waiting_to_start_again(stage: Stage) -> None:
    timing = Timing(first_backoff=60, max_backoff=60, poll=0.02)
    supervisor = stage.supervisor(NEVER_READY, timing=timing)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: any("starting it again in 60 s" in line for line in stage.said))
    supervisor.stop()
    async with asyncio.timeout(5):
        assert await task == 0


def test_backoff_doubles_to_its_limit_and_starts_anew_after_a_stable_time() -> None:
    timing, history, delays = Timing(), History(), []
    for ready_seconds in (None, 1, None, None, None, None, 5, 60, None):
        history = history.after(ready_seconds, timing)
        delays.append(history.backoff(timing))
    assert delays == [1, 2, 4, 8, 16, 30, 30, 1, 2]


def test_failures_count_only_in_a_row() -> None:
    history = History()
    for ready_seconds in (None, None, None, None, 0.1, None):
        history = history.after(ready_seconds, Timing())
    assert history.failures == 1


@pytest.mark.parametrize(
    ("code", "failures", "exit_code"), [(1, 4, None), (1, 5, 1), (2, 0, 2), (-9, 0, None), (0, 0, None)]
)
def test_verdict_on_an_exit(code: int, failures: int, exit_code: int | None) -> None:
    fault = verdict("engine", code, History(failures), Timing())
    assert (fault.code if isinstance(fault, GaveUpError) else None) == exit_code


@pytest.mark.parametrize(
    ("code", "words"),
    [(1, "exited with code 1"), (-15, "was ended by SIGTERM"), (-9, "was ended by SIGKILL (out of memory?)")],
)
def test_exit_code_in_words(code: int, words: str) -> None:
    assert ending(code) == words


async def test_process_on_a_leash_ends_with_its_parent_and_takes_its_group_along() -> None:
    held = (
        "import signal, subprocess, sys, time; from gateway.engine import leash; leash.hold(signal.SIGKILL);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdin=subprocess.DEVNULL);"
        "print('up', flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin
    assert process.stdout
    assert await process.stdout.readline() == b"up\n"
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == -signal.SIGKILL
    # The others are told in the same moment, and gone a moment later.
    await until(lambda: group_members(process.pid) == [])
