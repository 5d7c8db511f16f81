"""The frame around each inference route: who calls, errors in the route's own shape, and the record at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from gateway.access.admission import Admission, Place
from gateway.access.authentication import Access
from gateway.access.callers import ANONYMOUS, Caller
from gateway.access.quota import Quotas
from gateway.api.accounting import Accounting
from gateway.api.client import Receive, Scope, Send, header, read_body, respond
from gateway.api.dialects import Dialect, error_body, error_event
from gateway.api.estimate import Estimate
from gateway.api.observation import Observation
from gateway.api.subjects import Subjects
from gateway.catalog import Catalog
from gateway.errors import (
    AuthenticationError,
    ClientDisconnectedError,
    EngineUnavailableError,
    GatewayError,
    MethodNotAllowedError,
    OverloadedError,
    RateLimitError,
    TooManyFailuresError,
)
from gateway.ledger import Ledger
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
    subjects: Subjects
    quotas: Quotas
    admission: Admission
    bodies: Ledger
    accounting: Accounting
    metrics: Metrics

    async def run(self, answer: Answer, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        """Has `answer` answer the request; however that ends, the client hears of it and the request is recorded."""
        seen = Observation(scope["path"])
        token = request_id.set(seen.request_id)
        try:
            await answer(scope, receive, send, seen)
        except GatewayError as error:
            self._note(error, seen)
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
            self.bodies.change(-seen.body_bytes)
            self.accounting.close(seen)
            request_id.reset(token)

    async def body(self, scope: Scope, receive: Receive, seen: Observation) -> bytes:
        """The body of a POST by a caller who may use the route; it counts as held until the request has ended.

        Raises MethodNotAllowedError; before anything is read AuthenticationError, PermissionDeniedError and
        OverloadedError; PayloadTooLargeError.
        """
        if scope["method"] != "POST":
            raise MethodNotAllowedError(f"{seen.path} takes POST, not {scope['method']}.")
        caller = seen.caller = await self.authenticate(scope)
        caller.check_endpoint(seen.path)

        def hold(count: int) -> None:
            try:
                self.bodies.change(count)
            except OverloadedError as error:
                message = error.message
                raise OverloadedError(f"{message[0].upper()}{message[1:]}; try again shortly.") from None
            seen.body_bytes += count

        return await read_body(scope, receive, self.settings.server.max_body_bytes, hold)

    async def authenticate(self, scope: Scope) -> Caller:
        """Who has sent a request. Raises AuthenticationError and its kin."""
        try:
            return await self.access.authenticate(
                header(scope, b"authorization"), header(scope, b"x-api-key"), partial(_source, scope)
            )
        except (AuthenticationError, TooManyFailuresError) as error:
            self.metrics.authentication_failures.labels(error.code).inc()
            raise

    def tenant(self, seen: Observation) -> str | None:
        """For whom alone engines keep what they make of the request; None where all share it."""
        caller = seen.caller
        if caller is None or caller.id == ANONYMOUS.id or not self.settings.auth.isolate_caches:
            return None
        return caller.id

    async def charge(self, seen: Observation, expected: Estimate) -> None:
        """Charges every quota that the request falls under with what it may cost. Raises RateLimitError and its kin."""
        seen.expected = expected
        if subjects := self.subjects.of(seen.caller, seen.route):
            seen.entry = await self.quotas.enter(subjects, expected.prompt + expected.answer)

    def place(self, seen: Observation) -> Place:
        """A place among the requests in flight, as an asynchronous context manager."""
        caller = seen.caller or ANONYMOUS
        place = seen.place = self.admission.place(caller.id, caller.grant.priority)
        return place

    def _note(self, error: GatewayError, seen: Observation) -> None:
        if error.status == 503 and error.retry_after is None:
            error.retry_after = self.settings.limits.retry_after_seconds
        if isinstance(error, RateLimitError):
            self.metrics.rate_limited.labels(seen.model, error.type).inc()

    async def _stop(self, dialect: Dialect, send: Send, seen: Observation) -> None:
        """The drain time is over. A stream has already been told."""
        if seen.status == 0:
            retry_after = self.settings.limits.retry_after_seconds
            stopping = EngineUnavailableError("The server is shutting down.", retry_after=retry_after)
            await _refuse(stopping, dialect, send, seen)


def _source(scope: Scope) -> tuple[str | None, list[bytes]]:
    """The peer's address, and what X-Forwarded-For says."""
    client = scope.get("client")
    return client[0] if client else None, [value for name, value in scope["headers"] if name == b"x-forwarded-for"]


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
