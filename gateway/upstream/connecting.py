"""Opens connections to engines, over TCP or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
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
                transport, connection = await loop.create_connection(
                    lambda: Connection(settings), parts.hostname or "", parts.port or 80
                )
                _acknowledge_late(transport)
    except (OSError, TimeoutError) as fault:
        raise unavailable() from fault
    return connection


def _acknowledge_late(transport: asyncio.Transport) -> None:
    """Has Linux put the acknowledgements of several tokens together: by itself a new connection sends one for each."""
    if hasattr(socket, "TCP_QUICKACK"):
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def unavailable() -> GatewayError:
    """What a client hears while the engine is down or starting."""
    return EngineUnavailableError("The model is not available right now; try again shortly.")
