"""A gateway on a real socket, in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.app import Gateway, Source
from gateway.app.listening import bind


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """Serves by a configuration file, once all engines are ready; the gateway and its URL."""
    source = Source(config)
    gateway = Gateway(source.load(), source)
    listener = bind("127.0.0.1", 0, "port")
    running = gateway.public_server()
    async with gateway:
        task = asyncio.create_task(running.serve([listener]))
        async with asyncio.timeout(10):
            while not (running.started and any(engine.ready for engine in gateway.engines.values())):
                await asyncio.sleep(0.01)
        yield gateway, f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = running.force_exit = True
        await task
