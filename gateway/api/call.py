"""One request on a client's connection, and its answer: what inference routes work on, with no ASGI in between."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from gateway.chunked import framed
from gateway.errors import ClientDisconnectedError, InvalidRequestError, PayloadTooLargeError
from gateway.protocol import Body

#: Header fields by their lower-case names; of a field that came several times the values are joined by commas.
Fields = Mapping[bytes, bytes]

#: Bytes of a body that are read before somebody has asked for it.
READ_AHEAD = 64 * 1024

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class Flow(Protocol):
    """Whether a connection is read from, and takes what is written: uvicorn's."""

    write_paused: bool

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    async def drain(self) -> None: ...


class Client(Protocol):
    """The connection that a call came by."""

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def flow(self) -> Flow: ...

    def general_headers(self) -> bytes:
        """Lines for the head of every answer."""
        ...

    def fill(self, missing: memoryview) -> None:
        """Reads the rest of the body right to where it shall be."""
        ...

    def on_response_complete(self) -> None:
        """Goes on with the next request."""
        ...


class Call:
    """One request and its answer. Its task is cancelled when the client leaves; `left` then tells why.

    The answer is either `respond`, or `begin`, any number of `write`, and `end`. What is written to a client that has
    left goes nowhere.
    """

    __slots__ = (
        "_client",
        "_head",
        "_http10",
        "_pieces",
        "_waiter",
        "begun",
        "blocked",
        "expects_continue",
        "flow",
        "headers",
        "keep_alive",
        "left",
        "method",
        "more_body",
        "on_drain",
        "path",
        "peer",
        "response_complete",
        "silent",
        "taken",
        "unread",
        "write_framed",
    )

    def __init__(
        self,
        client: Client,
        method: str,
        path: str,
        headers: Fields,
        peer: str | None,
        *,
        http10: bool = False,
        keep_alive: bool = True,
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.peer = peer
        self.keep_alive = keep_alive
        self.more_body = True
        self.left = False
        #: Whether its task has begun to work on it.
        self.taken = False
        self.response_complete = False
        #: Whether anything of the answer has been written.
        self.begun = False
        #: Called when a client that was slow takes more again.
        self.on_drain: Callable[[], None] | None = None
        self.expects_continue = False
        self.flow = client.flow
        self._client = client
        self._http10 = http10
        self._head = b""
        #: Takes chunks with all that is around them in the middle of an answer; None where `write` has more to do.
        self.write_framed: Callable[[bytes], None] | None = None
        #: Whether the client takes less than was written; `on_drain` is called when it has caught up.
        self.blocked = client.flow.write_paused
        #: Whether nothing was written since this was set.
        self.silent = False
        self._pieces: list[Body] = []
        #: Bytes of the body that have come.
        self.unread = 0
        self._waiter: asyncio.Future[None] | None = None

    # The request's body

    def feed(self, piece: bytes) -> None:
        """Takes in a piece of the body."""
        self._pieces.append(piece)
        self.unread += len(piece)
        if self._waiter is not None:
            self._wake()
        elif self.unread > READ_AHEAD:
            self._client.flow.pause_reading()

    def feed_end(self) -> None:
        """The body is complete."""
        self.more_body = False
        self._wake()

    def leave(self) -> None:
        """The client has left."""
        self.left = True
        self.write_framed = None
        self._wake()

    async def body(self, limit: int, hold: Callable[[int], None]) -> Body:
        """The whole body, at most `limit` bytes. `hold` is told how many bytes are going to be held, in portions: by
        the Content-Length before anything is read, else as they come; it may raise.

        Raises PayloadTooLargeError, by the Content-Length if there is one; ClientDisconnectedError.
        """
        told = self._content_length(limit)
        hold(told)
        if self.more_body:
            await self._read_on(told, limit, hold)
        return self.take()

    def take(self) -> Body:
        """The body, once it is complete."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _read_on(self, told: int, limit: int, hold: Callable[[int], None]) -> None:
        if self.expects_continue:
            self._client.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if told > READ_AHEAD and b"transfer-encoding" not in self.headers and not self.left:
            self._read_rest(told)
        while self.more_body and not self.left:
            if self.unread > told:
                if self.unread > limit:
                    raise _too_large(limit)
                hold(self.unread - told)
                told = self.unread
            self._client.flow.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.left:
            raise ClientDisconnectedError
        if self.unread > limit:
            raise _too_large(limit)
        if self.unread > told:
            hold(self.unread - told)

    def _read_rest(self, size: int) -> None:
        """Has the rest of a large body read to its place at once: in pieces it would be copied three times."""
        whole = bytearray(size)
        here = self.unread
        whole[:here] = b"".join(self._pieces)
        self._pieces = [whole]
        self._client.fill(memoryview(whole)[here:])

    def _content_length(self, limit: int) -> int:
        """What the header says, 0 where there is none."""
        length = self.headers.get(b"content-length")
        if length is None:
            return 0
        if not length.isdigit():
            raise InvalidRequestError("Content-Length is not a number.")
        if int(length) > limit:
            raise _too_large(limit)
        return int(length)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The answer

    async def drained(self) -> None:
        """Waits until the client has caught up."""
        if self.blocked:
            await self.flow.drain()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Sends a complete answer. `headers` are whole lines."""
        self.begun = True
        head = b"%bcontent-length: %d\r\n\r\n" % (self._start(status, headers), len(body))
        self._send(head if self.method == "HEAD" else head + body)
        self._complete()

    def begin(self, status: int, headers: bytes) -> None:
        """Starts an answer of unknown length: the head goes with the first piece."""
        self.begun = True
        if self._http10:
            # Such a client knows the end by the connection's.
            self.keep_alive = False
            self._head = self._start(status, headers) + b"\r\n"
        else:
            self._head = self._start(status, headers) + b"transfer-encoding: chunked\r\n\r\n"

    def write(self, data: bytes) -> None:
        """Sends a piece, which is not empty."""
        self.silent = False
        piece = data if self._http10 else framed(data)
        if self._head:
            piece, self._head = self._head + piece, b""
        if not self.left:
            self._client.transport.write(piece)
            if not self._http10:
                self.write_framed = self._client.transport.write

    def end(self) -> None:
        """Ends the answer."""
        self._send(self._head + (b"" if self._http10 else b"0\r\n\r\n"))
        self._head = b""
        self._complete()

    def _start(self, status: int, headers: bytes) -> bytes:
        close = b"" if self.keep_alive else b"connection: close\r\n"
        return b"%b%b%b%b" % (_STATUS_LINES[status], self._client.general_headers(), close, headers)

    def _send(self, data: bytes) -> None:
        if not self.left:
            self._client.transport.write(data)

    def _complete(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._client.transport.close()
        self._client.on_response_complete()


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The request body is larger than the limit of {limit} bytes (server.max_body_bytes).")


def fields(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """By name; what came several times is joined, in the order in which it came (RFC 9110, 5.3)."""
    by_name = dict(pairs)
    if len(by_name) == len(pairs):
        return by_name
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = b"%b, %b" % (joined[name], value) if name in joined else value
    return joined


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields as lines of a head."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])
