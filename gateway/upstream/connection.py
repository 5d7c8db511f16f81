"""One HTTP/1.1 connection to an engine, as an asyncio Protocol: one exchange at a time, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import urlsplit

import httptools

from gateway.errors import EngineFailedError, EngineTimeoutError, EngineUnavailableError, GatewayError
from gateway.protocol import Buffer
from gateway.settings import EngineSettings

#: Bytes of a reply held for a slow client before reading from the engine stops.
HIGH_WATER = 256 * 1024


class StaleConnectionError(Exception):
    """A kept-alive connection was closed by the engine before any byte of the reply: nothing was lost."""


class Connection(asyncio.Protocol):
    """Sends one request after the other and hands out the reply's bytes as they come."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.reused = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._stop_timer()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self._heard = False
        self._error: Exception | None = None
        self._last_heard = 0.0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head_complete = False
        self.complete = False
        self._keep_alive = False

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended cleanly, nothing of it is left, and the engine keeps the connection open."""
        return self.complete and self._keep_alive and not self._paused and self._error is None and not self.closed

    def close(self) -> None:
        """Drops the connection at once: an engine that is still generating stops."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # The exchange

    async def exchange(self, head: bytes, body: Sequence[Buffer]) -> None:
        """Sends a request and waits until the reply's status and headers are known.

        Raises EngineFailedError, EngineTimeoutError, or StaleConnectionError where another connection may be tried.
        """
        if self.reused:
            self._reset()
        if self.closed:
            raise StaleConnectionError
        transport = cast(asyncio.Transport, self._transport)
        self._arm(self._settings.first_byte_seconds, self._first_byte_late)
        transport.writelines((head, *body))
        while not self.head_complete:
            self._raise_error()
            await self._wait()
        self._stop_timer()
        if not self.complete:
            self._last_heard = self._loop.time()
            self._arm(self._settings.idle_seconds, self._check_idle)

    async def read(self) -> bytes:
        """The bytes of the reply's body that have come; waits for some; b"" at the end.

        Raises EngineFailedError or EngineTimeoutError, after the bytes that came before the fault.
        """
        while not self._chunks:
            self._raise_error()
            if self.complete:
                return b""
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._held = 0
        if self._paused:
            self._resume()
        return data

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

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

    def _arm(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _first_byte_late(self) -> None:
        limit = self._settings.first_byte_seconds
        self._fail(EngineTimeoutError(f"The engine did not answer within {limit:g} s (first_byte_seconds)."))
        self.close()

    def _check_idle(self) -> None:
        """Re-arms instead of being re-armed by every chunk: one clock read a chunk is all that costs."""
        limit = self._settings.idle_seconds
        silent = 0.0 if self._paused else self._loop.time() - self._last_heard
        if silent < limit:
            self._arm(limit - silent, self._check_idle)
            return
        self._fail(EngineTimeoutError(f"The engine was silent for {limit:g} s (idle_seconds)."))
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._last_heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(EngineFailedError("The engine sent something that is not HTTP."))
            self.close()
            return
        self._wake()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        self._transport = None
        self._stop_timer()
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
        self._chunks.append(body)
        self._held += len(body)
        if self._held > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = True
            self._keep_alive = bool(self._parser.should_keep_alive())
            self._stop_timer()

    def _resume(self) -> None:
        self._paused = False
        self._last_heard = self._loop.time()
        if self._transport is not None:
            self._transport.resume_reading()


async def connect(settings: EngineSettings) -> Connection:
    """Opens a connection.

    Raises EngineUnavailableError where nothing listens, or nothing answers within `connect_seconds`.
    """
    parts = urlsplit(settings.url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(settings.connect_seconds):
            if parts.scheme == "unix":
                _, connection = await loop.create_unix_connection(lambda: Connection(settings), parts.path)
            else:
                _, connection = await loop.create_connection(
                    lambda: Connection(settings), parts.hostname or "", parts.port or 80
                )
    except (OSError, TimeoutError) as fault:
        raise unavailable() from fault
    return connection


def unavailable() -> GatewayError:
    """What a client hears while the engine is down or starting."""
    return EngineUnavailableError("The model is not available right now; try again shortly.")
