"""One HTTP/1.1 connection to an engine, as an asyncio Protocol: one exchange at a time, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import cast

import httptools

from gateway.chunked import CRLF, SIZE_LINES_BY_TOTAL
from gateway.errors import EngineFailedError, EngineTimeoutError
from gateway.protocol import Buffer
from gateway.settings import EngineSettings
from gateway.upstream.sse import END

#: Bytes of a reply held for a slow client before reading from the engine stops.
HIGH_WATER = 256 * 1024

_NEVER = float("inf")
_SHORT = len(SIZE_LINES_BY_TOTAL)

_EVENT_AND_CHUNK_END = END + CRLF


class StaleConnectionError(Exception):
    """A kept-alive connection was closed by the engine before any byte of the reply: nothing was lost."""


class Connection(asyncio.Protocol):
    """Sends one request after the other and hands out the reply's bytes as they come.

    Time is watched by one timer for the connection's life, which looks at the deadline now and then: setting a timer
    for each request, let alone each chunk, would cost more than the rest of this class.
    """

    __slots__ = (
        "_between",
        "_chunks",
        "_ends",
        "_error",
        "_feed",
        "_first_byte_seconds",
        "_has_body",
        "_heard",
        "_held",
        "_idle_seconds",
        "_keep_alive",
        "_last_heard",
        "_loop",
        "_parser",
        "_paused",
        "_shortest",
        "_total_seconds",
        "_transport",
        "_waiter",
        "_watch",
        "complete",
        "head_complete",
        "headers",
        "idle_since",
        "reused",
        "status",
    )

    def __init__(self, settings: EngineSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._first_byte_seconds = settings.first_byte_seconds
        self._idle_seconds = settings.idle_seconds
        self._total_seconds = settings.total_seconds or _NEVER
        self._shortest = min(self._first_byte_seconds, self._idle_seconds, self._total_seconds)
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._feed: Callable[[bytes], None] | None = None
        self.reused = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        # What came with the reply before and was not wanted must never be taken for the next one's.
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self._heard = False
        self._error: Exception | None = None
        #: The last byte that came, or the request; and when all must be over.
        self._last_heard = self._ends = _NEVER
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head_complete = False
        self.complete = False
        self._has_body = False
        self._keep_alive = False
        #: Whether the parser has had a whole chunk, and nothing of the next one.
        self._between = False

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended cleanly, nothing of it is left, and the engine keeps the connection open."""
        return self.complete and self._keep_alive and not self._paused and self._error is None and not self.closed

    def close(self) -> None:
        """Drops the connection at once: an engine that is still generating stops."""
        self._feed = None
        if self._transport is not None:
            self._transport.abort()

    # The exchange

    async def exchange(self, head: bytes, body: Sequence[Buffer]) -> None:
        """Sends a request and waits until the reply's status and headers are known.

        Raises EngineFailedError, EngineTimeoutError, or StaleConnectionError where another connection may be tried.
        """
        if self.reused:
            self._reset()
        transport = self._transport
        if transport is None or transport.is_closing():
            raise StaleConnectionError
        self._last_heard = now = monotonic()
        self._ends = now + self._total_seconds
        if self._watch is None:
            self._watch = self._loop.call_later(self._shortest, self._look)
        transport.writelines((head, *body))
        while not self.head_complete:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def wait_for_body(self) -> None:
        """Waits until a byte of the reply's body has come, or its end.

        Raises EngineFailedError or EngineTimeoutError.
        """
        while not (self._has_body or self.complete):
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        """The bytes of the reply's body that have come; waits for some; b"" at the end.

        Raises EngineFailedError or EngineTimeoutError, after the bytes that came before the fault.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._wait()
        return self._take()

    async def relay(self, feed: Callable[[bytes], None]) -> None:
        """Hands the bytes of the reply's body to `feed` as they come, without a wait in between, until the end.

        Raises what `feed` raises, EngineFailedError, or EngineTimeoutError.
        """
        if self._chunks:
            feed(self._take())
        self._feed = feed
        try:
            while not self.complete:
                if self._error is not None:
                    raise self._error
                await self._wait()
        finally:
            self._feed = None
        if self._error is not None:
            raise self._error

    def whole(self) -> bytes | None:
        """All of the reply's body, if it is here and nothing is wrong with it."""
        return self._take() if self.complete and self._error is None else None

    def pause(self) -> None:
        """Reads no more until `resume`: whoever the bytes are for is slower. That is no silence of the engine."""
        if not self._paused and self._transport is not None and not self.complete:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self._paused:
            self._paused = False
            self._last_heard = monotonic()
            if self._transport is not None:
                self._transport.resume_reading()

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._held = 0
        if self._paused:
            self.resume()
        return data

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self.complete:
            self._error = error
        self._wake()

    # Time

    def _look(self) -> None:
        """No limit is shorter than the time between two looks, so that none is missed."""
        self._watch = None
        if self.closed:
            return
        now = monotonic()
        deadline = self._deadline()
        if now < deadline:
            wait = min(deadline - now, self._shortest)
            self._watch = self._loop.call_later(wait, self._look)
        else:
            self._fail(EngineTimeoutError(self._overdue(now)))
            self.close()

    def _deadline(self) -> float:
        if self.complete or self._last_heard == _NEVER:
            return _NEVER
        if self._paused:
            return self._ends
        silence = self._idle_seconds if self._has_body else self._first_byte_seconds
        return min(self._last_heard + silence, self._ends)

    def _overdue(self, now: float) -> str:
        if now >= self._ends:
            return f"The engine had not answered in full after {self._total_seconds:g} s (total_seconds)."
        if self._has_body:
            return f"The engine was silent for {self._idle_seconds:g} s (idle_seconds)."
        return f"The engine did not answer within {self._first_byte_seconds:g} s (first_byte_seconds)."

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        feed = self._feed
        if feed is not None and self._between:
            # Nearly always one token comes, in a chunk of its own: that needs no parser, which stays where it is.
            size = len(data)
            if size < _SHORT and data.startswith(line := SIZE_LINES_BY_TOTAL[size]) and data.endswith(CRLF):
                self._last_heard = monotonic()
                try:
                    feed(data[len(line) : -2])
                except Exception as fault:  # noqa: BLE001 - raised again where the reply is waited for
                    self._stop_feeding(fault)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self.complete:
            # Nothing was asked for: whatever this is, it must not be taken for the next reply.
            self.close()
            return
        self._heard = True
        if self._has_body:
            self._last_heard = monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # Also after a complete message: one that is longer than it says was cut off there.
            self._error = self._error or EngineFailedError("The engine sent something that is not HTTP.")
            self._wake()
            self.close()
            return
        # After the content only the end of its chunk has come. To be told of that by the parser takes a tenth longer.
        chunks = self._chunks
        self._between = bool(chunks) and data.endswith(_EVENT_AND_CHUNK_END) and chunks[-1].endswith(END)
        if self._feed is None:
            if self._waiter is not None:
                self._wake()
            return
        if chunks:
            self._chunks = []
            self._held = 0
            try:
                self._feed(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            except Exception as fault:  # noqa: BLE001 - as above
                self._stop_feeding(fault)
        if self.complete:
            self._wake()

    def _stop_feeding(self, fault: Exception) -> None:
        """Also after the last byte: then there is nothing to drop, but the fault must be heard."""
        self._error = self._error or fault
        self._feed = None
        self._wake()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.reused and not self._heard:
            self._fail(StaleConnectionError())
        else:
            self._fail(EngineFailedError("The engine closed the connection before the reply was complete."))

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.head_complete = True

    def on_body(self, body: bytes) -> None:
        if not self._has_body:
            self._has_body = True
            self._last_heard = monotonic()
        self._chunks.append(body)
        self._held += len(body)
        if self._held > HIGH_WATER and self._feed is None:
            self.pause()

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = True
            self._keep_alive = bool(self._parser.should_keep_alive())
