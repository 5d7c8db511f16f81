"""Connections of clients: uvicorn's, with the bounds that it lacks on the size and the time of a request's head."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import InvalidRequestError

#: Bytes of request line and headers. Tokens have up to 16 KiB.
MAX_HEAD = 64 * 1024

#: Seconds from a connection's opening, or a request's first byte, to the end of its head.
HEAD_SECONDS = 30.0

#: Seconds for a refused client to read why.
_LINGER_SECONDS = 1.0


class HeadTooLargeError(InvalidRequestError):
    """The head of a request is over the limit; who sent it is not known yet."""

    status = 431
    code = "headers_too_large"


class Inbound(HttpToolsProtocol):
    """One connection. What is over a bound is closed, the size with an answer before."""

    _in_head = False
    _refused = False
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # What comes with the end of a body is counted as well: that only makes the bound a little lower.
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        super().data_received(data)
        if self._in_head:
            if self._head_bytes > MAX_HEAD:
                self._refuse()
            elif self._deadline is None:
                self._expect_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._stop_waiting()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        self._in_head = False
        body = HeadTooLargeError(f"The headers of the request are larger than {MAX_HEAD} bytes.").body()
        head = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self._refused = True
        self.transport.write(head + body)
        self.transport.write_eof()
        # Closed at once, with bytes unread, the connection would be reset, and the answer lost on its way.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
