"""An engine's answer to one request: status, headers, the body as it comes, and the end of the exchange."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from gateway.upstream.connection import Connection
from gateway.upstream.policies import Choice
from gateway.upstream.replica import Replica


class Releasing(Protocol):
    """Who takes the connection back when the reply has ended."""

    def release(self, replica: Replica, connection: Connection) -> None:
        """The reply has come to its end, or nobody wants the rest."""


class Reply:
    """An answer that is still coming. Use as a context manager: leaving it frees the connection, or drops it if bytes
    are left. `choice` tells which replica answers, and why that one.
    """

    __slots__ = ("_connection", "_pool", "choice", "headers", "status")

    def __init__(self, pool: Releasing, choice: Choice[Replica], connection: Connection) -> None:
        self._pool = pool
        self._connection = connection
        self.choice = choice
        self.status = connection.status
        self.headers = connection.headers

    def read(self) -> Coroutine[Any, Any, bytes]:
        """The bytes of the body that have come; waits for some; b"" at the end.

        Raises EngineFailedError or EngineTimeoutError.
        """
        return self._connection.read()

    def whole(self) -> bytes | None:
        """The whole body where nothing of it has been read, and no wait is needed; else None."""
        return self._connection.whole()

    async def read_all(self) -> bytes:
        """The whole body. Raises as `read` does."""
        chunks = []
        while chunk := await self.read():
            chunks.append(chunk)
        return b"".join(chunks)

    def relay(self, feed: Callable[[bytes], None]) -> Coroutine[Any, Any, None]:
        """Hands the body to `feed` as it comes, to its end. Raises what `feed` raises, and as `read` does."""
        return self._connection.relay(feed)

    def pause(self) -> None:
        """Reads no more from the engine until `resume`."""
        self._connection.pause()

    def resume(self) -> None:
        """Reads on."""
        self._connection.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.release(self.choice.replica, self._connection)


class KeptReply(Reply):
    """An answer that was read to see whether another replica should be asked: it holds nothing any more."""

    __slots__ = ("_body",)

    def __init__(self, pool: Releasing, choice: Choice[Replica], connection: Connection, body: bytes) -> None:
        super().__init__(pool, choice, connection)
        self._body = body

    @property
    def body(self) -> bytes:
        """What was read and not handed out yet."""
        return self._body

    async def _take(self) -> bytes:
        return self.whole()

    def whole(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def read(self) -> Coroutine[Any, Any, bytes]:
        return self._take()

    async def _hand_over(self, feed: Callable[[bytes], None]) -> None:
        if body := await self._take():
            feed(body)

    def relay(self, feed: Callable[[bytes], None]) -> Coroutine[Any, Any, None]:
        return self._hand_over(feed)

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
