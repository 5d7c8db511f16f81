"""An engine that costs next to nothing: answers every request at once with the same completion.

Run it with `python -m loadtest.engine PORT`; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import httptools
import uvloop

_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "google/gemma-4-E4B-it",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302},
    },
    separators=(",", ":"),
).encode()
_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)


class Engine(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Gets ready for requests."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Reads on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answers."""
        self._transport.write(_REPLY)


async def serve(port: int) -> None:
    """Serves on loopback until standard input ends."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Engine, "127.0.0.1", port)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
