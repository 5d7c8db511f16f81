"""The frame around each inference route: who calls, errors in the route's own shape, and the record at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.access.admission import Admission
from gateway.access.keys import ANONYMOUS, Access
from gateway.api.client import Receive, Scope, Send, header, read_body, respond
from gateway.api.dialects import Dialect, error_body, error_event
from gateway.api.observation import Observation
from gateway.catalog import Catalog, Route
from gateway.errors import ClientDisconnectedError, EngineUnavailableError, GatewayError, MethodNotAllowedError
from gateway.logs import request_id
from gateway.metrics import Metrics
from gateway.settings import Settings

logger = logging.getLogger(__name__)

Answer = Callable[[Scope, Receive, Send, Observation], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Edge:
    """What every inference route needs to let a request in and to let it out."""

    settings: Settings
    access: Access
    catalog: Catalog
    admission: Admission
    metrics: Metrics

    async def run(self, answer: Answer, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        """Has `answer` answer the request; however that ends, the client hears of it and the request is recorded."""
        seen = Observation(scope["path"])
        token = request_id.set(seen.request_id)
        try:
            await answer(scope, receive, send, seen)
        except GatewayError as error:
            if error.status == 503 and error.retry_after is None:
                error.retry_after = self.settings.limits.retry_after_seconds
            await _refuse(error, dialect, send, seen)
        except ClientDisconnectedError:
            seen.status = 499
        except asyncio.CancelledError:
            await self._stop(dialect, send, seen)
            raise
        except Exception:
            logger.exception("unexpected fault")
            await _fail(dialect, send, seen)
        finally:
            seen.record(self.metrics, access_log=self.settings.server.access_log)
            request_id.reset(token)

    async def body(self, scope: Scope, receive: Receive, seen: Observation) -> bytes:
        """The body of a POST by a known caller.

        Raises MethodNotAllowedError, AuthenticationError before anything is read, PayloadTooLargeError.
        """
        if scope["method"] != "POST":
            raise MethodNotAllowedError(f"{seen.path} takes POST, not {scope['method']}.")
        caller = self.access.authenticate(header(scope, b"authorization"), header(scope, b"x-api-key"))
        seen.caller = caller.id
        return await read_body(scope, receive, self.settings.server.max_body_bytes)

    def tenant(self, seen: Observation) -> str | None:
        """For whom alone engines keep what they make of the request; None where all share it."""
        return seen.caller if self.settings.auth.isolate_caches and seen.caller != ANONYMOUS.id else None

    def route(self, model: str | None, seen: Observation) -> Route:
        """Where a request for `model` goes. Raises InvalidRequestError or ModelNotFoundError."""
        route = self.catalog.resolve(model)
        seen.model, seen.engine = route.alias, route.engine
        return route

    async def _stop(self, dialect: Dialect, send: Send, seen: Observation) -> None:
        """The drain time is over. A stream has already been told."""
        if seen.status == 0:
            retry_after = self.settings.limits.retry_after_seconds
            stopping = EngineUnavailableError("The server is shutting down.", retry_after=retry_after)
            await _refuse(stopping, dialect, send, seen)


async def _refuse(error: GatewayError, dialect: Dialect, send: Send, seen: Observation) -> None:
    seen.status, seen.error, seen.reason = error.status, error.code or error.type, error.message
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", seen.request_id.encode()),
        *error.headers(),
    ]
    await respond(send, error.status, error_body(dialect, error), headers)


async def _fail(dialect: Dialect, send: Send, seen: Observation) -> None:
    """A fault of ours. Once the reply has begun only an event can tell of it."""
    fault = GatewayError("The server had an internal error.")
    if seen.status == 0:
        await _refuse(fault, dialect, send, seen)
        return
    seen.error = fault.type
    await send({"type": "http.response.body", "body": error_event(dialect, fault)})
