"""Client and engine of the guard, in step: the engine sends a token once the client has the one before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from loadtest.client import head
from loadtest.engine import BEGIN, DONE, LAST, REPLY, TOKEN, USAGE

_REQUEST = b'{"model":"gemma","messages":[{"role":"user","content":"Say hello."}],"max_tokens":16}'
_STREAM = _REQUEST[:-1] + b',"stream":true}'
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_EVENT_END = b"\n\n"
_STREAM_END = b"0\r\n\r\n"
#: Seconds for anything to happen.
_PATIENCE = 20.0


class Peer:
    """Asks the gateway on `port`, and answers it on the port `engine`. Enter it before use."""

    def __init__(self, port: int, engine: int, key: str) -> None:
        self._port = port
        self._engine = engine
        self._headers = f"authorization: Bearer {key}\r\n"
        self._tokens = 0
        self._step = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._engine)
        async with asyncio.timeout(_PATIENCE):
            await _until(self._connected)
            await _until(self._answered)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._server.close()

    async def _connected(self) -> bool:
        try:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        return True

    async def _answered(self) -> bool:
        return b" 200 " in await self._ask_once()

    async def request(self) -> None:
        """One request, and its whole answer. Raises RuntimeError where it is refused."""
        async with asyncio.timeout(_PATIENCE):
            if b" 200 " not in (said := await self._ask_once()):
                raise RuntimeError(f"the gateway answers {said!r}")

    async def _ask_once(self) -> bytes:
        """The head of the answer to a request."""
        self._writer.write(head(len(_REQUEST), self._headers) + _REQUEST)
        said = await self._reader.readuntil(_HEAD_END)
        await self._reader.readexactly(_length(said))
        return said

    async def stream(self, tokens: int, heard: Callable[[], Awaitable[None]] | None = None) -> None:
        """One stream of so many tokens, two at least; `heard` is awaited after each of them but the last."""
        self._tokens = tokens
        async with asyncio.timeout(_PATIENCE):
            self._writer.write(head(len(_STREAM), self._headers) + _STREAM)
            # The role has an event of its own.
            await self._reader.readuntil(_EVENT_END)
            for _ in range(tokens - 1):
                await self._reader.readuntil(_EVENT_END)
                if heard is not None:
                    await heard()
                self._step.release()
            await self._reader.readuntil(_STREAM_END)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the gateway."""
        try:
            while True:
                said = await reader.readuntil(_HEAD_END)
                body = await reader.readexactly(_length(said))
                if not body:
                    writer.write(_HEALTHY)
                elif b'"stream":true' in body:
                    await self._answer(writer, b'"include_usage":true' in body)
                else:
                    writer.write(REPLY)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, usage: bool) -> None:
        writer.write(BEGIN + TOKEN)
        for _ in range(self._tokens - 2):
            await self._step.acquire()
            writer.write(TOKEN)
        await self._step.acquire()
        writer.write(LAST + (USAGE if usage else b"") + DONE)


async def _until(done: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await done():
            return
        await asyncio.sleep(0.02)


def _length(said: bytes) -> int:
    told = _LENGTH.search(said)
    return int(told.group(1)) if told else 0
