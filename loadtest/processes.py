"""Starts what is measured, as processes on loopback, and reads their CPU time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Seconds of CPU in half a second, of a process that has nothing to do.
_CALM = 0.03

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Ports that somebody was told: whoever it was may not listen there yet.
_GIVEN: set[int] = set()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, those that live included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS
    return own + sum(cpu_seconds(child) for child in _children(pid))


def until_calm(pid: int) -> None:
    """Waits, half a minute at most: what a process and its children do once after their start, such as imports in the
    background, belongs to no figure.
    """
    before = -1.0
    for _ in range(60):
        if cpu_seconds(pid) - before < _CALM:
            return
        before = cpu_seconds(pid)
        time.sleep(0.5)


def resident_bytes(pid: int) -> int:
    """Memory of a process and its children that live; what they share with each other counts for each."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE + sum(resident_bytes(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    """Those of every thread: a process belongs to the thread that started it."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (thread / "children").read_text().split())
    return found


def free_port() -> int:
    """A port that nothing listens on, another each time."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[int]:
    """A process that listens on `port`; its pid."""
    with subprocess.Popen(  # noqa: S603  (the caller's own command)
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(process, port)
            yield process.pid
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not start")


def engine_command(port: int, pace: float = 0.0) -> list[str]:
    """An engine that costs next to nothing; `pace`: seconds between the tokens of a stream."""
    return [sys.executable, "-m", "loadtest.engine", str(port), "--pace", str(pace)]


def gateway_command(port: int, engine: int, folder: Path) -> list[str]:
    """The gateway with a renamed model and no log."""
    config = folder / "gateway.yaml"
    config.write_text(
        f"server: {{port: {port}, admin_port: {free_port()}}}\n"
        f"engines: {{default: {{url: 'http://127.0.0.1:{engine}'}}}}\n"
        "models: {gemma: {served_name: google/gemma-4-E4B-it, modalities: [text, image, audio]}}\n"
    )
    return [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]
