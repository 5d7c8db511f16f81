"""The usage log: a line of JSON for each inference request, written behind the requests' backs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from gateway.errors import ConfigurationError
from gateway.settings import UsageSettings
from gateway.usage_log.file import LinesFile, check
from gateway.usage_log.record import Finish, UsageRecord, encode

__all__ = ["INTERVAL", "KEPT", "Finish", "UsageLog", "UsageRecord"]

logger = logging.getLogger(__name__)

#: Seconds between two writes: a SIGKILL loses what came in this time and that of one write.
INTERVAL = 0.25
#: Records kept while the file cannot be written; later ones are lost.
KEPT = 100_000
#: Records in one write.
_BLOCK = 1000
#: Seconds that the end of the gateway waits for the last write, such as to a file system that hangs.
_CLOSING = 5.0


class UsageLog:
    """Writes records within INTERVAL seconds, in a thread of its own: no request waits for a disk, or fails with it.

    `on_fault` is told, in that thread, how many records could not be written when they were due. KEPT of them, at most,
    are written when that is possible again.
    """

    def __init__(self, settings: UsageSettings, on_fault: Callable[[int], None]) -> None:
        """Raises ConfigurationError with the fix where the file cannot be written."""
        if settings.file is None:
            raise ConfigurationError("the usage log has no file; set usage.file")
        check(settings.file)
        self._file = LinesFile(settings.file, settings.max_bytes, settings.max_files)
        self._on_fault = on_fault
        # Only `write` appends and only the thread takes off, at the other end, so that `write` needs no lock.
        self._pending: deque[UsageRecord] = deque()
        self._flushing = threading.Lock()
        self._lost = 0
        self._told_lost = 0
        self._told_late = 0
        self._writer: _Writer | None = None

    def write(self, record: UsageRecord) -> None:
        """Adds a record. For the event loop's thread; takes well below a microsecond."""
        if len(self._pending) >= KEPT:
            self._lost += 1
            return
        self._pending.append(record)
        if self._writer is None:
            self._writer = _Writer(self._flush, self._file.close)

    async def aclose(self) -> None:
        """Writes what is left. A record that comes even later is written, too, by a new thread."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.end)

    def _flush(self) -> None:
        """Writes all that is pending; what cannot be written stays so."""
        with self._flushing:
            try:
                while self._pending:
                    self._write_block()
            except OSError as fault:
                self._tell_late(fault)
            self._tell_lost()

    def _write_block(self) -> None:
        # By number, for a deque that grows meanwhile cannot be iterated over.
        records = [self._pending[number] for number in range(min(_BLOCK, len(self._pending)))]
        written = self._file.append(encode(records))
        for _ in range(written):
            self._pending.popleft()
        if self._told_late:
            self._told_late = max(0, self._told_late - written)
            if not self._told_late:
                logger.info("the usage log is written again")

    def _tell_late(self, fault: OSError) -> None:
        """Each record counts once, however often it is tried."""
        late = len(self._pending) - self._told_late
        if not self._told_late:
            logger.error("cannot write the usage log: %s; up to %d records are kept until it works again", fault, KEPT)
        self._told_late += late
        if late:
            self._on_fault(late)

    def _tell_lost(self) -> None:
        lost = self._lost - self._told_lost
        self._told_lost += lost
        if lost:
            self._on_fault(lost)


class _Writer(threading.Thread):
    """Calls `flush` every INTERVAL seconds, and once more before `close` at the end."""

    def __init__(self, flush: Callable[[], None], close: Callable[[], None]) -> None:
        # A daemon, so that a file system that hangs cannot keep the process from ending.
        super().__init__(name="usage-log", daemon=True)
        self._flush = flush
        self._close = close
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ending.wait(INTERVAL):
            self._flush()
        self._flush()
        self._close()

    def end(self) -> None:
        """Blocks until all is written, or the time for that is over."""
        self._ending.set()
        self.join(_CLOSING)
