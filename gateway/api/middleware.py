"""Request id and access log of the FastAPI routes, as pure ASGI; the inference routes do the same by themselves."""

from __future__ import annotations

import time

from starlette.types import ASGIApp

from gateway.api.client import Message, Receive, Scope, Send
from gateway.api.observation import new_request_id
from gateway.logs import request_id
from gateway.logs.access import AccessLog, AccessRecord


class RequestLog:
    """Gives each request an id, tells it to the client, and logs one line."""

    def __init__(self, app: ASGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identifier = new_request_id()
        started = time.monotonic()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identifier.encode())]
            await send(message)

        token = request_id.set(identifier)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)
            if self._log.on:
                self._log.write([_record(scope, status, identifier, time.monotonic() - started)])


def _record(scope: Scope, status: int, identifier: str, seconds: float) -> AccessRecord:
    return AccessRecord(
        at=time.time(),
        method=scope["method"],
        path=scope["path"],
        status=status,
        request_id=identifier,
        seconds=round(seconds, 4),
    )
