"""Connections of clients: uvicorn's, with bounds on the head of a request, and with inference routes off ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.call import READ_AHEAD, Call, Fields, fields, lines
from gateway.errors import InvalidRequestError

#: Bytes of request line and headers. Tokens have up to 16 KiB.
MAX_HEAD = 64 * 1024

#: Seconds from a connection's opening, or a request's first byte, to the end of its head.
HEAD_SECONDS = 30.0

#: Seconds for a refused client to read why.
_LINGER_SECONDS = 3.0

#: Answers a call.
Handler = Callable[[Call], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Public:
    """The calls that go past ASGI: those for `paths`, by how they stand in a request, are answered by `handler`. While
    `draining`, no connection is kept for another request.
    """

    paths: Mapping[bytes, str]
    handler: Handler
    draining: Callable[[], bool] = lambda: False


class HeadTooLargeError(InvalidRequestError):
    """The head of a request is over the limit; who sent it is not known yet."""

    status = 431
    code = "headers_too_large"


class Inbound(HttpToolsProtocol):
    """One connection. What is over a bound is closed, the size with an answer before.

    What is `public` becomes a call; a small body is waited for before its handler runs, so that nearly all of that runs
    without a wait for the client. To uvicorn a call stands in for one of its cycles: it has what is asked of those.
    The other requests go uvicorn's way.
    """

    def __init__(self, *args: Any, public: Public | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._public = public
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_head = False
        self._deaf = False
        #: Bytes of a body that come past the parser; see `_stay`.
        self._unparsed = 0
        self._head_bytes = 0
        #: Since when the client is waited for: the end of a head, a small body, the next request; None while it waits.
        self._waiting_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._general: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._waiting_since = self.loop.time()
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._call is not None:
            self._lose(self._call)
        super().connection_lost(exc)

    def _lose(self, call: Call) -> None:
        """The client has left. A task that has not begun yet sees for itself."""
        self.cycle = self._call = None  # type: ignore[assignment]
        call.leave()
        if self._task is not None and call.taken and not call.response_complete:
            self._task.cancel()

    def _look(self) -> None:
        """Closes the connection after too long a wait. One timer for its whole life costs requests nothing."""
        limit = HEAD_SECONDS if self._in_head else float(self.timeout_keep_alive)
        since = self._waiting_since
        left = HEAD_SECONDS if since is None else since + limit - self.loop.time()
        if left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._watch = self.loop.call_later(min(left, HEAD_SECONDS), self._look)

    # Requests

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            if self._unparsed:
                self._feed_unparsed(data)
            return
        # What comes with the end of a body is counted as well: that only makes the bound a little lower.
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        if self._in_head and self._head_bytes > MAX_HEAD:
            self._refuse()

    def on_message_begin(self) -> None:
        if not self._in_head:
            self._in_head = True
            self._waiting_since = self.loop.time()
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # Clients send twenty of them: what else uvicorn does here waits until it is known who needs it.
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._in_head = False
        self._waiting_since = None
        public = self._public
        path = None if public is None else public.paths.get(self.url) or public.paths.get(_path(self.url))
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and (path is not None or self._call is not None):
            # A request that comes before the answer to the one before: the client has to send it again.
            self.cycle.keep_alive = False
            self._deaf = True
            return
        if path is None:
            self._begin_cycle()
        else:
            self._begin_call(path)
        if public is not None and public.draining():
            self.cycle.keep_alive = False

    def _begin_cycle(self) -> None:
        """uvicorn's way, which begins with the scope."""
        self._call = None
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url, self.headers = url, headers
        self.expect_100_continue = _expects_continue(dict(headers))
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _begin_call(self, path: str) -> None:
        parser = self.parser
        http10 = parser.get_http_version() == "1.0"
        call = self._call = Call(
            self,
            parser.get_method().decode("ascii"),
            path,
            fields(self.headers),
            self.client[0] if self.client else None,
            http10=http10,
            keep_alive=not http10 and parser.should_keep_alive(),
        )
        self.cycle = call  # type: ignore[assignment]
        # That of the call before may not have ended yet, though its answer is complete.
        self._task = None
        length = call.headers.get(b"content-length", b"")
        call.expects_continue = b"expect" in call.headers and _expects_continue(call.headers)
        if parser.should_upgrade() and length.isdigit():
            self._unparsed = int(length)
        if call.expects_continue or not length.isdigit() or int(length) > READ_AHEAD:
            self._work(call)
        else:
            self._waiting_since = self.loop.time()

    def _work(self, call: Call) -> None:
        assert self._public is not None  # noqa: S101 - where the call comes from
        self._waiting_since = None
        task = self._task = self.loop.create_task(self._public.handler(call))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self._task is task:
            self._task = None

    def on_body(self, body: bytes) -> None:
        call = self._call
        if call is None:
            super().on_body(body)
        elif not (call.response_complete or self._deaf):
            call.feed(body)

    def on_message_complete(self) -> None:
        call = self._call
        if call is None:
            super().on_message_complete()
        elif not (call.response_complete or self._deaf or self._unparsed):
            self._end_body(call)

    def _end_body(self, call: Call) -> None:
        call.feed_end()
        if self._task is None:
            self._work(call)

    # Wishes for another protocol

    def _stay(self, rest: bytes) -> None:
        """To HTTP/2, as Java's client asks for: the request is answered all the same. The parser takes no body of it,
        and no other request.
        """
        self._deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
        if self._unparsed and rest:
            self._feed_unparsed(rest)

    def _feed_unparsed(self, data: bytes) -> None:
        call = self._call
        if call is None or call.response_complete:
            return
        body = data[: self._unparsed]
        self._unparsed -= len(body)
        call.feed(body)
        if not self._unparsed:
            self._end_body(call)

    # Large bodies

    def fill(self, missing: memoryview) -> None:
        """Has the rest of a body read right to where it shall be, past the parser."""
        self._hand_reading_to(_Filling(self, missing))

    def filled(self) -> None:
        """The body is complete. Its parser is left in the middle of it, so that another one begins."""
        if self._deaf:
            self._unparsed = 0
        else:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._hand_reading_to(self)
        if self._call is not None and not self._call.response_complete:
            self._end_body(self._call)

    def _hand_reading_to(self, protocol: asyncio.BaseProtocol) -> None:
        """Transports change the way they read only while they do not."""
        self.flow.pause_reading()
        self.transport.set_protocol(protocol)
        self.flow.resume_reading()

    # Answers

    def general_headers(self) -> bytes:
        """The date, which is made once a second."""
        headers = self.server_state.default_headers
        if headers is not self._general[0]:
            self._general = headers, lines(headers)
        return self._general[1]

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._waiting_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._call is not None:
            self._call.blocked = True

    def resume_writing(self) -> None:
        super().resume_writing()
        call = self._call
        if call is not None:
            call.blocked = False
            if call.on_drain is not None:
                call.on_drain()

    def _refuse(self) -> None:
        self._in_head = False
        body = HeadTooLargeError(f"The headers of the request are larger than {MAX_HEAD} bytes.").body()
        head = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self._deaf = True
        self.transport.write(head + body)
        self.transport.write_eof()
        # Closed at once, with bytes unread, the connection would be reset, and the answer lost on its way.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class _Filling(asyncio.BufferedProtocol):
    """Stands in for a connection while a large body is read."""

    def __init__(self, connection: Inbound, missing: memoryview) -> None:
        self._missing = missing
        self._filled = connection.filled
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        return self._missing

    def buffer_updated(self, nbytes: int) -> None:
        self._missing = self._missing[nbytes:]
        if not self._missing:
            self._filled()


def _expects_continue(headers: Fields) -> bool:
    return headers.get(b"expect", b"").lower() == b"100-continue"


def _path(url: bytes) -> bytes:
    """Without query, and without scheme and host where a proxy has sent them."""
    return url.partition(b"?")[0] if url.startswith(b"/") else httptools.parse_url(url).path or b""
