"""Opens connections to engines, over TCP or a Unix socket."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from gateway.errors import EngineUnavailableError, GatewayError
from gateway.settings import EngineSettings
from gateway.upstream.connection import Connection


async def connect(settings: EngineSettings, url: str) -> Connection:
    """Opens a connection to `url`.

    Raises EngineUnavailableError where nothing listens, or nothing answers within `connect_seconds`.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(settings.connect_seconds):
            if parts.scheme == "unix":
                _, connection = await loop.create_unix_connection(lambda: Connection(settings), parts.path)
            else:
                _, connection = await loop.create_connection(
                    lambda: Connection(settings), parts.hostname or "", parts.port or 80
                )
    except (OSError, TimeoutError) as fault:
        raise unavailable() from fault
    return connection


def unavailable() -> GatewayError:
    """What a client hears while the engine is down or starting."""
    return EngineUnavailableError("The model is not available right now; try again shortly.")
