"""The client's side of an ASGI exchange: its headers, its body, its leaving, and complete answers to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any

from gateway.errors import ClientDisconnectedError, InvalidRequestError, PayloadTooLargeError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return value  # type: ignore[no-any-return]
    return None


async def read_body(scope: Scope, receive: Receive, limit: int, hold: Callable[[int], None]) -> bytes:
    """The whole request body, at most `limit` bytes. `hold` is told how many bytes are going to be held, in portions:
    by the Content-Length before anything is read, else as they come; it may raise.

    Raises PayloadTooLargeError, by the Content-Length if there is one; ClientDisconnectedError.
    """
    told = _content_length(scope, limit)
    hold(told)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        _check(message, len(body), limit)
        return body
    chunks = [body]
    size = len(body)
    while message.get("more_body"):
        if size > told:
            hold(size - told)
            told = size
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        _check(message, size, limit)
    return b"".join(chunks)


def _content_length(scope: Scope, limit: int) -> int:
    """What the header says, 0 where there is none."""
    length = header(scope, b"content-length")
    if length is None:
        return 0
    if not length.isdigit():
        raise InvalidRequestError("Content-Length is not a number.")
    if int(length) > limit:
        raise _too_large(limit)
    return int(length)


def _check(message: Message, size: int, limit: int) -> None:
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    if size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The request body is larger than the limit of {limit} bytes (server.max_body_bytes).")


class WhileConnected:
    """An asynchronous context that ends with ClientDisconnectedError, at whatever it awaits, when the client leaves.

    Enter it once the body is read: `receive` then tells nothing but the client's leaving. What runs inside is
    cancelled through a timeout's scope, so that a cancellation from outside is still a cancellation.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._scope = asyncio.timeout(None)
        self._left = False

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._watcher = asyncio.ensure_future(self._receive())
        self._watcher.add_done_callback(self._on_message)

    def _on_message(self, watcher: asyncio.Future[Message]) -> None:
        if not watcher.cancelled() and watcher.exception() is None and not self._left:
            self._scope.reschedule(0)

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._watcher.cancel()
        try:
            await self._scope.__aexit__(kind, fault, trace)
        except TimeoutError:
            raise ClientDisconnectedError from None


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """A complete answer in one piece."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
