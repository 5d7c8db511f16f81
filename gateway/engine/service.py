"""One child process that is kept running: started, watched, restarted with backoff, ended with its whole group."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

#: What children print belongs to the log: our own standard output carries the ready line alone.
STANDARD_ERROR = 2

#: The exit code of a configuration that cannot run: trying again will not help.
MISCONFIGURED = 2


@dataclass(frozen=True)
class Timing:
    """How patient the supervisor is. All in seconds."""

    first_backoff: float = 1
    max_backoff: float = 30
    #: Ready for so long, and the backoff starts anew.
    stable: float = 60
    #: Starts in a row that never became ready, after which it gives up.
    max_failures: int = 5
    poll: float = 0.5
    report: float = 10
    #: Beyond the drain time, until SIGKILL: vLLM takes about 5 s to take itself down.
    stop_margin: float = 15


@dataclass(frozen=True)
class Command:
    """What to start. `ready` says whether it does its work by now; it must not raise."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class History:
    """What is remembered of earlier runs."""

    #: Runs in a row that never became ready.
    failures: int = 0
    #: Restarts since it was last stable.
    restarts: int = 0

    def after(self, ready_seconds: float | None, timing: Timing) -> History:
        """The history with one more run, which was ready for so long (None: never)."""
        failures = self.failures + 1 if ready_seconds is None else 0
        stable = ready_seconds is not None and ready_seconds >= timing.stable
        return History(failures, 1 if stable else self.restarts + 1)

    def backoff(self, timing: Timing) -> float:
        """Seconds until the next start: doubling from the first to the greatest."""
        return float(min(timing.max_backoff, timing.first_backoff * 2 ** (max(self.restarts, 1) - 1)))


class GaveUpError(Exception):
    """A service cannot be kept running. `code` is the exit code to end with; the message says why."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def verdict(name: str, code: int, history: History, timing: Timing) -> GaveUpError | None:
    """Why not to start it again after it exited with `code`; None: start it."""
    if code == MISCONFIGURED:
        return GaveUpError(f"{name}: its configuration cannot run; the cause stands above", MISCONFIGURED)
    if history.failures >= timing.max_failures:
        return GaveUpError(
            f"{name}: {ending(code)} before it was ready, {history.failures} times in a row; the cause stands above", 1
        )
    return None


def ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


@dataclass
class Service:
    """A command and the process that runs it now, if any."""

    command: Command
    timing: Timing
    say: Callable[[str], None]
    #: Called when a process was started or has become ready.
    changed: Callable[[], None] = lambda: None
    process: Process | None = field(default=None, init=False)
    ready: bool = field(default=False, init=False)

    @property
    def pid(self) -> int | None:
        """The process, which also names its group."""
        return None if self.process is None else self.process.pid

    async def keep(self) -> None:
        """Keeps the command running. Returns never; raises GaveUpError."""
        history = History()
        while True:
            code, ready_seconds = await self._run()
            history = history.after(ready_seconds, self.timing)
            if fault := verdict(self.command.name, code, history, self.timing):
                raise fault
            delay = history.backoff(self.timing)
            self.say(f"{self.command.name}: {ending(code)}; starting it again in {delay:g} s")
            await asyncio.sleep(delay)

    async def stop(self, seconds: float) -> None:
        """Asks the process to end, and ends its group after `seconds`."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.process.wait()
        if self.process.returncode is None:
            self.say(f"{self.command.name}: still there after {seconds:g} s; killing it")
        self.kill()
        await self.process.wait()
        self.process = None

    def kill(self) -> None:
        """Ends the group at once: the process and all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def _run(self) -> tuple[int, float | None]:
        """One life of the process: its exit code, and for how many seconds it was ready (None: never)."""
        loop = asyncio.get_running_loop()
        process = await self._start()
        watcher = asyncio.create_task(self._await_ready(loop.time()))
        try:
            code = await process.wait()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        self.kill()
        self.ready, self.process = False, None
        self.changed()
        since = None if watcher.cancelled() else watcher.result()
        return code, None if since is None else loop.time() - since

    async def _start(self) -> Process:
        # A session of its own: Ctrl-C reaches the supervisor alone, and the group can be killed whole.
        self.process = await asyncio.create_subprocess_exec(
            *self.command.argv, stdin=PIPE, stdout=STANDARD_ERROR, env=self.command.environment, start_new_session=True
        )
        self.changed()
        return self.process

    async def _await_ready(self, start: float) -> float:
        """Looks until it is ready, saying now and then how long it has taken; the loop's time of readiness."""
        loop = asyncio.get_running_loop()
        report = start + self.timing.report
        while not await self.command.ready():
            if loop.time() >= report:
                self.say(f"{self.command.name}: loading, {loop.time() - start:.0f} s")
                report += self.timing.report
            await asyncio.sleep(self.timing.poll)
        self.ready = True
        self.changed()
        return loop.time()
