"""Counts the work that one request, and one chunk of a stream, is for the gateway: times would differ everywhere.

    python -m loadtest.guard             # by function, and whether it is more than was recorded; then it exits with 1
    python -m loadtest.guard --record    # what is measured now is what is recorded

Counted are calls, of C functions too, and instructions of Python's own machine, in the thread that serves. Everything
is on: a key, limits, an alias that is renamed, metrics, the access log. Engine and client are another
thread; a token is sent once the client has the one before, so that each is relayed by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click

from gateway import app
from gateway.api import accounting
from loadtest.guard_peer import Peer
from loadtest.overhead_proxies import write_gateway
from loadtest.processes import free_port

RECORD = Path(__file__).with_suffix(".json")
#: What may be added to what was recorded before the guard complains.
MARGIN = 0.2
#: Python's own machine differs between versions, and its counts with it.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_REQUESTS = 25
_CHUNKS = 50
_REST_SECONDS = 0.005

#: By function.
Counts = Counter[str]


@dataclass(slots=True)
class Meter:
    """Counts while it is on, by function, in the thread that it is installed in. `last` grows as long as it works."""

    on: bool = False
    last: int = 0
    calls: Counter[Any] = field(default_factory=Counter)
    instructions: Counter[Any] = field(default_factory=Counter)

    def install(self) -> None:
        """Counts in this thread from now on."""
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.on and event == "call":
            self.calls[frame.f_code] += 1
        elif self.on and event == "c_call":
            self.calls[getattr(argument, "__qualname__", "?")] += 1

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002  (sys.settrace's)
        if not self.on:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._count

    def _count(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002  (sys.settrace's)
        if self.on and event == "opcode":
            self.instructions[frame.f_code] += 1
            self.last += 1
        return self._count

    def take(self) -> tuple[Counts, Counts]:
        """Calls and instructions since the last time."""
        calls, self.calls = self.calls, Counter()
        instructions, self.instructions = self.instructions, Counter()
        # Copied at one go: the other thread may be about to add to them still.
        return _named(dict(calls)), _named(dict(instructions))


def _named(counts: Mapping[Any, int]) -> Counts:
    named: Counts = Counter()
    for function, count in counts.items():
        named[function if isinstance(function, str) else _name(function.co_filename, function.co_qualname)] += count
    return named


def _name(file: str, function: str) -> str:
    """Two parts of the file's path are enough to find it."""
    return f"{'/'.join(Path(file).parts[-2:])} {function}"


@dataclass(frozen=True, slots=True)
class Work:
    """What one request, or one chunk, takes by function: medians over many, which leave out what the clock starts."""

    calls: Mapping[str, float]
    instructions: Mapping[str, float]

    @classmethod
    def of(cls, taken: Sequence[tuple[Counts, Counts]]) -> Self:
        """What was counted for each of several."""
        return cls(*(_medians(counts) for counts in zip(*taken, strict=True)))

    def totals(self) -> dict[str, float]:
        """Over all functions."""
        return {"calls": sum(self.calls.values()), "instructions": sum(self.instructions.values())}


def _medians(counts: Sequence[Counts]) -> dict[str, float]:
    functions = set().union(*counts)
    medians = {function: statistics.median(each[function] for each in counts) for function in functions}
    return {function: median for function, median in medians.items() if median}


def measure() -> dict[str, Work]:
    """The work of a `request` that is answered whole, and of a `chunk` of a stream.

    Serves in this thread and ends by SIGTERM, as the command does: call it in a process of its own. Raises
    RuntimeError or TimeoutError where the gateway does not answer.
    """
    meter = Meter()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as thread:
        port, engine = free_port(), free_port()
        config, key = write_gateway(Path(name), port, engine, probe_seconds=600)
        driven = thread.submit(lambda: asyncio.run(_drive(meter, Peer(port, engine, key))))
        driven.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGTERM))
        meter.install()
        try:
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
                # What is counted and logged for several requests at a time is so for each: as often on every machine.
                accounting.PERIOD = 0.0
                app.run(app.Source(config))
        finally:
            sys.settrace(None)
            sys.setprofile(None)
        return driven.result()


async def _drive(meter: Meter, peer: Peer) -> dict[str, Work]:
    requests: list[tuple[Counts, Counts]] = []
    chunks: list[tuple[Counts, Counts]] = []

    async def count_chunk() -> None:
        chunks.append(await _taken(meter))

    async with peer:
        for _ in range(5):
            await peer.request()
            await peer.stream(2)
        await _taken(meter)
        meter.on = True
        for _ in range(_REQUESTS):
            await peer.request()
            requests.append(await _taken(meter))
        await peer.stream(_CHUNKS, count_chunk)
        meter.on = False
    return {"request": Work.of(requests), "chunk": Work.of(chunks)}


async def _taken(meter: Meter) -> tuple[Counts, Counts]:
    """What was counted, once the gateway has done what it still does when the client has its answer."""
    before = -1
    while before != meter.last:
        before = meter.last
        await asyncio.sleep(_REST_SECONDS)
    return meter.take()


def complaints(measured: Mapping[str, Mapping[str, float]], recorded: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What takes more than was recorded, by more than the margin."""
    return [
        f"one {kind} takes {measured[kind][what]:.0f} {what}, {measured[kind][what] / before - 1:+.0%} over the "
        f"{before:.0f} recorded; `python -m loadtest.guard` tells by function, `--record` accepts it"
        for kind, totals in recorded.items()
        for what, before in totals.items()
        if measured[kind][what] > before * (1 + MARGIN)
    ]


def recorded() -> dict[str, dict[str, float]] | None:
    """Calls and instructions by `request` and `chunk`; None where there are none for this version of Python."""
    document = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return document["work"] if document.get("python") == VERSION else None


def _table(kind: str, work: Work, rows: int) -> str:
    lines = [f"\none {kind}: " + ", ".join(f"{count:.0f} {what}" for what, count in work.totals().items())]
    functions = sorted({**work.calls, **work.instructions}, key=lambda f: work.instructions.get(f, 0), reverse=True)
    lines += [f"{work.instructions.get(f, 0):8.0f} {work.calls.get(f, 0):7.0f}  {f}" for f in functions[:rows]]
    lines.insert(1, f"{'instr.':>8} {'calls':>7}  function")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--record", is_flag=True, help=f"Write {RECORD.name}.")
@click.option("--rows", default=60, help="Functions to tell of.")
def main(record: bool, rows: int) -> None:
    try:
        found = measure()
    except (RuntimeError, TimeoutError) as fault:
        raise click.ClickException(f"the gateway does not answer as it should. {fault}") from fault
    for kind, work in found.items():
        click.echo(_table(kind, work, rows))
    totals = {kind: work.totals() for kind, work in found.items()}
    if record:
        RECORD.write_text(json.dumps({"python": VERSION, "work": totals}, indent=1) + "\n")
        return
    before = recorded()
    if before is None:
        click.echo(f"\nnothing is recorded for Python {VERSION}")
    elif grown := complaints(totals, before):
        raise click.ClickException("\n".join(grown))


if __name__ == "__main__":
    main()
