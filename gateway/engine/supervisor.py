"""Runs an engine and the gateway in front of it on this machine: what `gemma-gateway serve` does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from gateway.engine.service import Command, GaveUpError, Service, Timing


@dataclass(frozen=True)
class Output:
    """Where lines go: progress and faults to `say`, the one ready line to `announce`, pids to `record`."""

    say: Callable[[str], None]
    announce: Callable[[str], None]
    #: Called at every change with the pids (None: not running) and whether requests are answered.
    record: Callable[[int | None, int | None, bool], None] = lambda *_: None


class Supervisor:
    """Keeps engine and gateway running until it is told to stop.

    The gateway runs from the start: while the engine loads, or is started again, it answers 503 with Retry-After.
    """

    def __init__(
        self,
        engine: Command,
        gateway: Command,
        output: Output,
        *,
        example: str,
        drain_seconds: float,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._output = output
        self._example = example
        self._drain_seconds = drain_seconds
        self._announced = False
        self._stop = asyncio.Event()
        self._start = monotonic()
        self.engine = Service(engine, self._timing, output.say, self._on_change)
        self.gateway = Service(gateway, self._timing, output.say, self._on_change)

    async def run(self) -> int:
        """Runs until SIGTERM or SIGINT, or until a service cannot be kept running; the exit code."""
        self._handle_signals()
        keepers = [asyncio.create_task(service.keep()) for service in (self.gateway, self.engine)]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([*keepers, stopped], return_when=asyncio.FIRST_COMPLETED)
            return self._outcome(keepers)
        finally:
            for task in (*keepers, stopped):
                task.cancel()
            await asyncio.gather(*keepers, stopped, return_exceptions=True)
            await self._shut_down()

    def stop(self) -> None:
        """Asks for the orderly end; asked again, ends everything at once."""
        if self._stop.is_set():
            self.gateway.kill()
            self.engine.kill()
        self._stop.set()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def _outcome(self, keepers: list[asyncio.Task[None]]) -> int:
        for keeper in keepers:
            if keeper.done():
                fault = keeper.exception()
                if not isinstance(fault, GaveUpError):
                    keeper.result()
                    raise AssertionError("keep() returned")
                self._output.say(str(fault))
                return fault.code
        self._output.say("stopping: running requests may finish (again Ctrl-C: at once)")
        return 0

    async def _shut_down(self) -> None:
        """The gateway first: it takes no more requests and finishes those it has, while the engine still works."""
        await self.gateway.stop(self._drain_seconds + self._timing.stop_margin)
        await self.engine.stop(self._drain_seconds + self._timing.stop_margin)

    def _on_change(self) -> None:
        ready = self.engine.ready and self.gateway.ready
        self._output.record(self.engine.pid, self.gateway.pid, ready)
        if not ready:
            return
        if self._announced:
            self._output.say("ready again")
        else:
            self._output.announce(f"Ready in {monotonic() - self._start:.0f} s: {self._example}")
        self._announced = True
