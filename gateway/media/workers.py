"""Decodes in processes of their own: a hostile file costs one of them, never the gateway or another request.

Processes and not threads because a decoder in C may crash, hang or hold the interpreter's lock, and no thread can be
ended. A worker is killed at its deadline and when nobody waits for its result any more, and replaced; it may
take only so much memory, yields the processor to the event loop, and is renewed now and then, so that
what decoders leave behind is given back.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from gateway.errors import MediaError, MediaTooLargeError, OverloadedError
from gateway.metrics import Metrics
from gateway.settings import MediaSettings, Modality

P = ParamSpec("P")
R = TypeVar("R")

#: Parts that a worker decodes before it is renewed.
_TASKS = 500

#: Bytes that a worker may take on top of what it has at its start.
_MEMORY = 3 << 30

#: Added to the niceness: the event loop comes first.
_NICE = 5

#: glibc's own way to give memory back; other C libraries have none, and need none.
_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)

#: Bytes from which on memory is mapped by itself, so that freeing it gives it back whenever that is: results are freed
#: after they were sent. By itself glibc would raise this to 32 MiB (M_MMAP_THRESHOLD of mallopt(3)).
_MAPPED = 1 << 20
_M_MMAP_THRESHOLD = -3

#: Imported once, before workers are forked off, so that a new one costs milliseconds.
_PRELOAD = ("gateway.media.image", "gateway.media.audio", "gateway.media.video")


class Workers:
    """The pool; its first workers are started by `warm` or by the first use."""

    def __init__(self, settings: MediaSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._waiting = 0
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOAD))
        self._pool = ProcessPool(settings.decode_workers, _TASKS, _confine, context=context)

    def warm(self) -> None:
        """Starts the workers, without waiting for them."""
        for _ in range(self._settings.decode_workers):
            self._pool.schedule(_nothing)

    async def run(self, modality: Modality, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function`, which must be at the top of a module, returns or raises. Cancelling it kills its worker.

        Raises OverloadedError where too many wait already, MediaTooLargeError where it takes longer than
        `decode_seconds` (waiting for a worker not counted) or too much memory, MediaError where the worker died of it.
        """
        with self._place():
            limit = self._settings.decode_seconds
            future = self._pool.schedule(_timed, (function, *args), kwargs, timeout=limit)
            try:
                seconds, result = await asyncio.wrap_future(future)
            except TimeoutError:
                raise MediaTooLargeError(
                    f"decoding it takes longer than {limit:g} seconds (media.decode_seconds)"
                ) from None
            except MemoryError:
                raise MediaTooLargeError("decoding it takes too much memory") from None
            except ProcessExpired as fault:
                raise MediaError("the data is corrupt: decoding it failed") from fault
        self._metrics.decode_seconds.labels(modality).observe(seconds)
        return result  # type: ignore[no-any-return]

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._waiting >= self._settings.max_decodes_waiting:
            raise OverloadedError("too many media are being decoded (media.max_decodes_waiting)", retry_after=2)
        self._waiting += 1
        self._metrics.decodes_waiting.set(self._waiting)
        try:
            yield
        finally:
            self._waiting -= 1
            self._metrics.decodes_waiting.set(self._waiting)

    async def aclose(self) -> None:
        """Ends the workers."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        await asyncio.to_thread(self._pool.join)


def _timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    try:
        result = function(*args, **kwargs)
        return time.perf_counter() - started, result
    finally:
        _give_back()


def _give_back() -> None:
    """Returns what allocators keep of freed memory to the system: glibc holds on to whole pictures."""
    if _trim is not None:
        _trim(0)


def _confine() -> None:
    """Makes this process one that can do little harm."""
    _silence()
    os.nice(_NICE)
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _address_space() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _silence() -> None:
    """What libraries say of a broken file would stand between the lines of the log, as long and as often as clients
    like; the faults that matter are raised.
    """
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.close(sink)


def _address_space() -> int:
    """Bytes of address space that this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _nothing() -> None:
    """A task that only makes a worker start."""
