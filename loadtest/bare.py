"""The relay alone: no key, no quota, no catalog, no metrics. What the whole gateway is compared with.

Run it with `python -m loadtest.bare PORT ENGINE_PORT`; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from gateway.api import exchange
from gateway.api.call import Call
from gateway.api.dialects import Dialect
from gateway.api.observation import Observation
from gateway.api.relay import Relay
from gateway.app.generation import INFERENCE_URLS
from gateway.app.inbound import Public
from gateway.app.listening import bind, server
from gateway.protocol import parse
from gateway.settings import EngineSettings
from gateway.upstream.pool import Engine

_LARGEST = 64 << 20


class Bare:
    """Answers calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, call: Call) -> None:
        """Passes a call on and its reply back."""
        call.taken = True
        seen = Observation(call.path)
        request = parse(seen.path, await call.body(_LARGEST, lambda _: None))
        headers = b"x-request-id: %b\r\n" % seen.request_id.encode()
        relay = Relay(
            call, seen, Dialect.OPENAI, headers, hide_usage=False, media_tokens={}, rename=None, retry_after=2
        )
        to_send = exchange.headers(call, seen)
        with await self._engine.send(b"POST", seen.path, request.encode(), to_send) as reply:
            await relay.run(reply)


async def serve(port: int, engine: int) -> None:
    """Serves on loopback until standard input ends."""
    bare = Bare(Engine("engine", EngineSettings(url=f"http://127.0.0.1:{engine}")))
    running = server(None, 1, Public(INFERENCE_URLS, bare.answer))
    gc.collect()
    gc.freeze()
    serving = asyncio.create_task(running.serve([bind("127.0.0.1", port, "port")]))
    await asyncio.to_thread(sys.stdin.read)
    running.should_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
