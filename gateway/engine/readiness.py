"""Stands before vLLM's application: tells whether the engine is ready, and counts and refuses requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.errors import EngineUnavailableError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Paths that answer whether the engine is well.
HEALTH = frozenset({"/health", "/ping"})

#: What Retry-After tells those who come too early or too late, in seconds.
RETRY_AFTER = 5.0


class Phase(StrEnum):
    """Where in its life the engine is. The value is what /health says."""

    WARMING_UP = "warming up"
    READY = "ready"
    DRAINING = "draining"


class Gate:
    """ASGI middleware. `/health` is 503 unless the phase is READY; so is every POST and every WebSocket.

    When READY, `/health` is vLLM's own, which is 503 once the engine core has died. Other GET requests (metrics,
    models) always pass.
    """

    def __init__(self, application: Application) -> None:
        self.phase = Phase.WARMING_UP
        self.running = 0
        """Requests that may use the engine and are not fully answered yet."""
        self._application = application
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Gate {self.phase}, {self.running} running>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.phase is not Phase.READY and scope["type"] == "http" and scope["path"] in HEALTH:
            await respond(send, 503, msgspec.json.encode({"status": self.phase}))
        elif scope["type"] not in ("http", "websocket") or scope.get("method") in ("GET", "HEAD", "OPTIONS"):
            await self._application(scope, receive, send)
        elif self.phase is Phase.READY:
            await self._count(scope, receive, send)
        else:
            await self._refuse(scope, receive, send)

    async def idle(self) -> None:
        """Waits until no request is running."""
        await self._idle.wait()

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        self._idle.clear()
        try:
            await self._application(scope, receive, send)
        finally:
            self.running -= 1
            if self.running == 0:
                self._idle.set()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            # 1013: try again later, https://www.iana.org/assignments/websocket
            await send({"type": "websocket.close", "code": 1013, "reason": f"The engine is {self.phase}."})
            return
        fault = EngineUnavailableError(
            f"The engine is {self.phase} and takes no new requests.", retry_after=RETRY_AFTER
        )
        await respond(send, fault.status, fault.body(), fault.headers())


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answers with a JSON body. The connection is closed after it: in these phases it has no further use."""
    always = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*always, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
