"""The frame around each inference route: who calls, errors in the route's own shape, and the record at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.access.admission import Admission
from gateway.access.authentication import Access
from gateway.access.callers import ANONYMOUS, Caller
from gateway.access.quota import Quotas
from gateway.api.accounting import Accounting
from gateway.api.call import Call, Fields, lines
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
from gateway.protocol import Body
from gateway.settings import Settings
from gateway.tracing import Tracer

logger = logging.getLogger(__name__)

Answer = Callable[[Call, Observation], Awaitable[None]]


class Edge:
    """What every inference route needs to let a request in and to let it out. `ended` is called after each call."""

    def __init__(
        self,
        *,
        settings: Settings,
        access: Access,
        catalog: Catalog,
        subjects: Subjects,
        quotas: Quotas,
        admission: Admission,
        bodies: Ledger,
        accounting: Accounting,
        metrics: Metrics,
        tracer: Tracer | None,
        ended: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.access = access
        self.catalog = catalog
        self.subjects = subjects
        self.quotas = quotas
        self.admission = admission
        self.bodies = bodies
        self.accounting = accounting
        self.metrics = metrics
        self.tracer = tracer
        self.ended = ended
        # Settings that each request needs, which are slow to read where they are.
        self.comment_seconds = settings.server.stream_comment_seconds or 0.0
        self.retry_after_seconds = settings.limits.retry_after_seconds
        self.tells_speed = settings.server.usage_speed
        self.answer_tokens = settings.quotas.estimated_completion_tokens
        self._max_body_bytes = settings.server.max_body_bytes
        self._isolate_caches = settings.auth.isolate_caches

    async def run(self, answer: Answer, dialect: Dialect, call: Call) -> None:
        """Has `answer` answer the call; however that ends, the client hears of it and the request is recorded."""
        seen = Observation(call.path, call.method)
        # A task of its own for each request: nobody else sees this, so that it need not be set back.
        request_id.set(seen.request_id)
        call.taken = True
        if self.tracer is not None:
            seen.trace = self.tracer.incoming(call.headers.get(b"traceparent"), call.headers.get(b"tracestate"))
        try:
            if call.left:
                raise ClientDisconnectedError
            await answer(call, seen)
        except GatewayError as error:
            self._note(error, seen)
            _refuse(error, dialect, call, seen)
        except ClientDisconnectedError:
            seen.status = 499
        except asyncio.CancelledError:
            if call.left:
                seen.status = 499
            else:
                self._stop(dialect, call, seen)
                raise
        except Exception:
            logger.exception("unexpected fault")
            _fail(dialect, call, seen)
        finally:
            if seen.body_bytes:
                self.bodies.change(-seen.body_bytes)
            self.accounting.close(seen)
            self.ended()

    def body_now(self, call: Call, seen: Observation) -> Body | None:
        """What `body` gives, where it is here and a good key has come with it; None: nothing has happened yet."""
        if call.more_body or call.method != "POST":
            return None
        headers = call.headers
        caller = self.access.by_key(headers.get(b"authorization"), headers.get(b"x-api-key"))
        if caller is None or call.unread > self._max_body_bytes or not self.bodies.take(call.unread):
            return None
        seen.body_bytes = call.unread
        seen.caller = caller
        if caller.grant.endpoints is not None:
            caller.check_endpoint(seen.path)
        return call.take()

    async def body(self, call: Call, seen: Observation) -> Body:
        """The body of a POST by a caller who may use the route; it counts as held until the request has ended.

        Raises MethodNotAllowedError; before anything is read AuthenticationError, PermissionDeniedError and
        OverloadedError; PayloadTooLargeError.
        """
        if call.method != "POST":
            raise MethodNotAllowedError(f"{seen.path} takes POST, not {call.method}.")
        caller = seen.caller = await self.authenticate(call.headers, call.peer)
        caller.check_endpoint(seen.path)

        def hold(count: int) -> None:
            try:
                self.bodies.change(count)
            except OverloadedError as error:
                message = error.message
                raise OverloadedError(f"{message[0].upper()}{message[1:]}; try again shortly.") from None
            seen.body_bytes += count

        return await call.body(self._max_body_bytes, hold)

    async def authenticate(self, headers: Fields, peer: str | None) -> Caller:
        """Who sent a request with these headers from the address `peer`. Raises AuthenticationError and its kin."""
        try:
            return await self.access.authenticate(
                headers.get(b"authorization"), headers.get(b"x-api-key"), partial(_source, headers, peer)
            )
        except (AuthenticationError, TooManyFailuresError) as error:
            self.metrics.authentication_failures.labels(error.code).inc()
            raise

    def tenant(self, seen: Observation) -> str | None:
        """For whom alone engines keep what they make of the request; None where all share it."""
        caller = seen.caller
        if caller is None or caller.id == ANONYMOUS.id or not self._isolate_caches:
            return None
        return caller.id

    async def charge(self, seen: Observation, expected: Estimate) -> None:
        """Charges every quota that the request falls under with what it may cost. Raises RateLimitError and its kin."""
        seen.expected = expected
        if subjects := self.subjects.of(seen.caller, seen.route):
            tokens = expected.prompt + expected.answer
            seen.entry = self.quotas.enter_now(subjects, tokens) or await self.quotas.enter(subjects, tokens)

    async def wait(self, seen: Observation) -> None:
        """Waits for a place among the requests in flight, to be given back by `admission.leave`.

        Raises OverloadedError.
        """
        caller = seen.caller or ANONYMOUS
        place = seen.place = self.admission.place(caller.id, caller.grant.priority)
        started = time.monotonic()
        try:
            await self.admission.wait(place)
        finally:
            seen.note_phase("queue", started)

    def _note(self, error: GatewayError, seen: Observation) -> None:
        if error.status == 503 and error.retry_after is None:
            error.retry_after = self.retry_after_seconds
        if isinstance(error, RateLimitError):
            self.metrics.rate_limited.labels(seen.model, error.type).inc()

    def _stop(self, dialect: Dialect, call: Call, seen: Observation) -> None:
        """The drain time is over. A stream has already been told."""
        if seen.status == 0:
            retry_after = self.retry_after_seconds
            stopping = EngineUnavailableError("The server is shutting down.", retry_after=retry_after)
            _refuse(stopping, dialect, call, seen)


def _source(headers: Fields, peer: str | None) -> tuple[str | None, list[bytes]]:
    """The peer's address, and what X-Forwarded-For says."""
    forwarded = headers.get(b"x-forwarded-for")
    return peer, [] if forwarded is None else [forwarded]


def _refuse(error: GatewayError, dialect: Dialect, call: Call, seen: Observation) -> None:
    seen.status, seen.error, seen.reason = error.status, error.code or error.type, error.message
    if call.begun:
        # Comments were sent while the engine was silent.
        call.write(error_event(dialect, error))
        call.end()
        return
    headers = b"content-type: application/json\r\n" + seen.id_line + lines(error.headers())
    call.respond(error.status, headers, error_body(dialect, error))


def _fail(dialect: Dialect, call: Call, seen: Observation) -> None:
    """A fault of ours. Once the reply has begun only an event can tell of it."""
    fault = GatewayError("The server had an internal error.")
    if seen.status == 0:
        _refuse(fault, dialect, call, seen)
        return
    seen.error = fault.type
    if not call.response_complete:
        call.write(error_event(dialect, fault))
        call.end()
