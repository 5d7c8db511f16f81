"""An engine for what the real one cannot be made to do: faults, timing, load. Speaks vLLM's HTTP over a real socket."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass(frozen=True)
class Received:
    """One request as the engine got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]

#: What our engine process says while it starts or drains.
AWAY = b'{"error":{"message":"The engine is draining and takes no new requests.","code":"engine_unavailable"}}'


class Reader(asyncio.StreamReader):
    """Tells as well when the other side has hung up, before anybody has read that far."""

    def __init__(self) -> None:
        super().__init__()
        self.hung_up = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.hung_up.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.hung_up.set()


@dataclass
class FakeEngine:
    """Answers with `behaviour`; remembers the inference requests and how many are being answered."""

    port: int = 0
    behaviour: Behaviour = field(default_factory=lambda: completion())
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    running: int = 0
    #: Requests that came while it was away.
    refused: int = 0
    healthy: bool = True
    #: Starts or drains: `/health` is 503, and requests are refused as our engine process refuses them then.
    away: bool = False
    #: How long it takes to say so.
    health_seconds: float = 0
    models: tuple[str, ...] = ("served",)
    metrics: bytes = b""
    scrapes: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers[writer] = asyncio.current_task()
        try:
            while (request := await _read(reader)) is not None:
                if request.path == "/health":
                    await asyncio.sleep(self.health_seconds)
                    await reply(b"", status=200 if self.healthy and not self.away else 503)(request, writer)
                    continue
                if request.path == "/v1/models":
                    await reply(compact({"data": [{"id": name} for name in self.models]}))(request, writer)
                    continue
                if request.path.startswith("/metrics"):
                    self.scrapes.append(request.path)
                    await reply(self.metrics, status=200 if self.metrics else 404)(request, writer)
                    continue
                if self.away:
                    self.refused += 1
                    await reply(AWAY, status=503, retry_after="5")(request, writer)
                    continue
                self.requests.append(request)
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.pop(writer)
            writer.close()

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        make = functools.partial(_protocol, self.serve)
        self._server = await loop.create_server(make, "127.0.0.1", port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed."""
        return len(self._writers)

    def die(self) -> None:
        """Stops listening and cuts every connection, as a killed process does."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            abort(writer)

    async def restart(self, seconds: float = 0.1) -> None:
        """As our engine process and its successor: refuses what is new, lets what runs finish, ends, starts after some
        seconds at the same address, and is ready after as many.
        """
        self.away = True
        while self.running:
            await asyncio.sleep(0.01)
        self.die()
        await asyncio.sleep(seconds)
        await self.start(self.port)
        await asyncio.sleep(seconds)
        self.away = False

    async def _answer(self, request: Received, reader: Reader, writer: asyncio.StreamWriter) -> None:
        """Stops at once when the gateway hangs up, as vLLM does."""
        self.running += 1
        answer = asyncio.ensure_future(self.behaviour(request, writer))
        hang_up = asyncio.ensure_future(reader.hung_up.wait())
        try:
            await asyncio.wait((answer, hang_up), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer
            else:
                raise ConnectionResetError
        finally:
            self.running -= 1
            for task in (answer, hang_up):
                task.cancel()
            await asyncio.gather(answer, hang_up, return_exceptions=True)


@asynccontextmanager
async def running() -> AsyncIterator[FakeEngine]:
    """A fake engine on a free port."""
    engine = FakeEngine()
    await engine.start()
    try:
        yield engine
    finally:
        left = [task for task in engine._writers.values() if task is not None]
        engine.die()
        await asyncio.gather(*left)


def _protocol(serve: Callable[[Reader, asyncio.StreamWriter], Awaitable[None]]) -> asyncio.StreamReaderProtocol:
    """What `asyncio.start_server` would make, but with a reader of ours."""
    reader = Reader()
    return asyncio.StreamReaderProtocol(reader, lambda _, writer: serve(reader, writer))


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


# Behaviours


def reply(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Behaviour:
    """A complete answer with a Content-Length."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return behave


def completion() -> Behaviour:
    """A chat completion: JSON, or three chunks and, where it was asked for, the usage chunk, as vLLM sends them."""

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        asked = request.json()
        if not asked.get("stream"):
            body = {"id": "chatcmpl-1", "object": "chat.completion", "model": asked["model"], "usage": USAGE}
            await reply(compact(body | {"choices": [choice("abc")]}))(request, writer)
            return
        await begin(writer)
        for text in "abc":
            await send(writer, event(text, asked["model"]))
        if (asked.get("stream_options") or {}).get("include_usage"):
            await send(writer, data({"id": "chatcmpl-1", "model": asked["model"], "choices": [], "usage": USAGE}))
        await send(writer, b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


def choice(text: str) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}


def compact(document: object) -> bytes:
    """JSON without blanks, as vLLM serializes."""
    return json.dumps(document, separators=(",", ":")).encode()


def data(document: object) -> bytes:
    return b"data: " + compact(document) + b"\n\n"


def event(text: str, model: str = "m") -> bytes:
    """One chunk of a streamed chat completion."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return data({"id": "chatcmpl-1", "model": model, "choices": choices})


def streamed(request: Received) -> bool:
    """Whether a stream was asked for."""
    return bool(request.json().get("stream"))


async def begin(writer: asyncio.StreamWriter) -> None:
    """The head of an event stream."""
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    await writer.drain()


async def send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """One chunk of HTTP's chunked encoding; b"" ends the body."""
    writer.write(b"%x\r\n%b\r\n" % (len(payload), payload))
    await writer.drain()


def abort(writer: asyncio.StreamWriter) -> None:
    """Cuts the connection as a dying process does."""
    writer.transport.abort()
