"""An engine that costs next to nothing: answers every chat request at once, or streams as many tokens as it asks for.

Run it with `python -m loadtest.engine PORT [--pace SECONDS]`; it ends with its standard input. Replies have vLLM's
shape: one event a token, each in an HTTP chunk of its own, then the usage where it was asked for, and `[DONE]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import sys
from typing import cast

import httptools
import uvloop

MODEL = "google/gemma-4-E4B-it"
_USAGE = {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302}
_MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}

#: What is kept of a request: more of it is media, and nothing of interest.
_KEPT = 16 * 1024
_STREAM = re.compile(rb'"stream":\s*true')
_USAGE_WANTED = re.compile(rb'"include_usage":\s*true')
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d+)')


def _compact(document: object) -> bytes:
    """JSON without blanks, as vLLM serializes."""
    return json.dumps(document, separators=(",", ":")).encode()


def _answer() -> bytes:
    body = _compact(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [_MESSAGE],
            "usage": _USAGE,
        }
    )
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(data: bytes) -> bytes:
    """One event in an HTTP chunk of its own."""
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    head = {"id": f"chatcmpl-{'0' * 32}", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return _chunk(_compact({**head, "choices": choices, **more}))


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, "token_ids": None}])


REPLY = _answer()
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
ROLE = _delta({"role": "assistant", "content": ""})
TOKEN = _delta({"content": " token"})
LAST = _delta({"content": " token"}, "length")
USAGE = _event([], usage=_USAGE)
DONE = _chunk(b"[DONE]") + b"0\r\n\r\n"
#: The beginning of every stream, which comes with its first token.
BEGIN = _STREAM_HEAD + ROLE


class Clock:
    """Gives every open stream its next token at once, as a step of an engine does; `pace` is seconds between steps."""

    def __init__(self, pace: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._pace = pace
        self._streams: set[Engine] = set()
        self._ticking = False
        self._next = 0.0

    def add(self, stream: Engine) -> None:
        """Gives it a token with each step from now on."""
        self._streams.add(stream)
        if not self._ticking:
            self._ticking = True
            self._next = self._loop.time()
            self._again()

    def remove(self, stream: Engine) -> None:
        """It has ended."""
        self._streams.discard(stream)

    def _again(self) -> None:
        if self._pace:
            # A step that comes late does not shift those after it, and those that were missed are not made up for.
            self._next = max(self._next + self._pace, self._loop.time())
            self._loop.call_at(self._next, self._step)
        else:
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        for stream in tuple(self._streams):
            stream.give()
        if self._streams:
            self._again()
        else:
            self._ticking = False


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = 0
        self._end = DONE
        self._body: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Gets ready for requests."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Stops generating."""
        self._clock.remove(self)

    def data_received(self, data: bytes) -> None:
        """Reads on."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keeps what is small."""
        self._size += len(body)
        if self._size <= _KEPT:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Answers."""
        body = b"".join(self._body)
        self._body.clear()
        self._size = 0
        if _STREAM.search(body):
            self._begin(body)
        else:
            self._transport.write(REPLY)

    def _begin(self, body: bytes) -> None:
        """The first token comes at once, the others with the clock."""
        tokens = _TOKENS.search(body)
        self._left = int(tokens.group(1)) if tokens else 16
        self._end = LAST + (USAGE if _USAGE_WANTED.search(body) else b"") + DONE
        self._left -= 1
        self._transport.write(BEGIN + TOKEN)
        self._clock.add(self)

    def give(self) -> None:
        """The next token, and what follows the last one."""
        self._left -= 1
        if self._left > 0:
            self._transport.write(TOKEN)
        else:
            self._transport.write(self._end)
            self._clock.remove(self)


async def serve(port: int, pace: float) -> None:
    """Serves on loopback until standard input ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clock = Clock(pace)
    await asyncio.get_running_loop().create_server(lambda: Engine(clock), "127.0.0.1", port, backlog=4096)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--pace", type=float, default=0.0, help="Seconds between the tokens of a stream.")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.pace))


if __name__ == "__main__":
    main()
