"""Asks each engine's /health again and again, so that readiness is known before a request needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.upstream.pool import Engine

logger = logging.getLogger(__name__)

#: Longest that a healthy engine takes to say so, in seconds; its event loop may be busy with a large prompt.
ANSWER_SECONDS = 5.0


async def is_healthy(engine: Engine) -> bool:
    """Whether the engine answers its /health with 200."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            with await engine.send(b"GET", "/health") as reply:
                await reply.read_all()
                return reply.status == 200
    except (GatewayError, TimeoutError):
        return False


async def watch(engine: Engine, on_change: Callable[[Engine], None]) -> None:
    """Keeps `engine.ready` true to its /health until cancelled; tells `on_change` of each change."""
    known: bool | None = None
    while True:
        ready = await is_healthy(engine)
        if ready != known:
            known = engine.ready = ready
            level, state = (logging.INFO, "ready") if ready else (logging.WARNING, "not ready")
            logger.log(level, "engine %s is %s", engine.name, state)
            on_change(engine)
        await asyncio.sleep(engine.settings.probe_seconds)
