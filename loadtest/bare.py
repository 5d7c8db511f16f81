"""The relay alone: no key, no quota, no catalog, no metrics. What the whole gateway is compared with.

Run it with `python -m loadtest.bare PORT ENGINE_PORT`; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from gateway.api import exchange
from gateway.api.client import Receive, Scope, Send, WhileConnected, read_body
from gateway.api.dialects import Dialect
from gateway.api.observation import Observation
from gateway.api.relay import Relay
from gateway.app.listening import bind, server
from gateway.protocol import parse
from gateway.settings import EngineSettings
from gateway.upstream.pool import Engine

_LARGEST = 64 << 20


class Bare:
    """The ASGI application."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Observation(scope["path"])
        request = parse(seen.path, await read_body(scope, receive, _LARGEST, lambda _: None))
        headers = ((b"x-request-id", seen.request_id.encode()),)
        relay = Relay(Dialect.OPENAI, headers, hide_usage=False, media_tokens={}, rename=None, retry_after=2)
        async with WhileConnected(receive):
            to_send = exchange.headers(scope, seen.request_id)
            with await self._engine.send(b"POST", seen.path, request.encode(), to_send) as reply:
                await relay.run(reply, send, seen)


async def serve(port: int, engine: int) -> None:
    """Serves on loopback until standard input ends."""
    running = server(Bare(Engine("engine", EngineSettings(url=f"http://127.0.0.1:{engine}"))), drain_seconds=1)
    gc.collect()
    gc.freeze()
    serving = asyncio.create_task(running.serve([bind("127.0.0.1", port, "port")]))
    await asyncio.to_thread(sys.stdin.read)
    running.should_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
