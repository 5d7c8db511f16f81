"""An engine as the gateway sees it: its connections, its replies, its health."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gateway.protocol import Buffer
from gateway.settings import EngineSettings
from gateway.upstream.connection import Connection, StaleConnectionError, connect

#: uvicorn, and so vLLM, closes a connection that was idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): be earlier.
KEEP_ALIVE_SECONDS = 4.0


class Reply:
    """An engine's answer. Use as a context manager: leaving it frees the connection, or drops it if bytes are left."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        self.read = connection.read

    async def read_all(self) -> bytes:
        """The whole body."""
        chunks = []
        while chunk := await self.read():
            chunks.append(chunk)
        return b"".join(chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.release(self._connection)


class Engine:
    """One engine: sends requests over connections that it keeps."""

    def __init__(self, name: str, settings: EngineSettings) -> None:
        self.name = name
        self.settings = settings
        self.ready = False
        self.in_flight = 0
        self._idle: list[Connection] = []
        self._closed = False
        host = urlsplit(settings.url).netloc or "engine"
        self._head_end = f" HTTP/1.1\r\nhost: {host}\r\n".encode()

    def __repr__(self) -> str:
        return f"<Engine {self.name} ready={self.ready} in_flight={self.in_flight} idle={len(self._idle)}>"

    async def send(
        self, method: bytes, path: str, body: Sequence[Buffer] = (), headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> Reply:
        """Sends a request and returns once the headers of the reply have come. Cancelling it makes the engine stop.

        `body` may come in pieces.

        Raises EngineUnavailableError, EngineFailedError or EngineTimeoutError.
        """
        head = self._head(method, path, sum(map(len, body)), headers)
        self.in_flight += 1
        try:
            connection = await self._exchange(head, body)
        except BaseException:
            self.in_flight -= 1
            raise
        return Reply(self, connection)

    async def _exchange(self, head: bytes, body: Sequence[Buffer]) -> Connection:
        while True:
            connection = self._kept() or await connect(self.settings)
            try:
                await connection.exchange(head, body)
            except StaleConnectionError:
                connection.close()
            except BaseException:
                connection.close()
                raise
            else:
                return connection

    def _head(self, method: bytes, path: str, length: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return b"%b %b%bcontent-length: %d\r\n%b\r\n" % (method, path.encode(), self._head_end, length, lines)

    def _kept(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None

    def release(self, connection: Connection) -> None:
        """Takes a connection back after its exchange."""
        self.in_flight -= 1
        if connection.reusable and not self._closed and len(self._idle) < self.settings.max_idle_connections:
            connection.reused = True
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        """Drops the kept connections, and from now on keeps none."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
