"""An exchange with an engine, from the edge's side: the headers it gets, and what its failures mean to a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import msgspec
from blake3 import blake3

from gateway.api.call import Call, lines
from gateway.api.dialects import Dialect, error_event
from gateway.api.observation import Observation
from gateway.errors import (
    ANTHROPIC_TYPES,
    EngineFailedError,
    EngineOverloadedError,
    EngineUnavailableError,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
)
from gateway.metrics import Metrics
from gateway.upstream.pool import Reply
from gateway.upstream.retries import NOT_READY, SHUTTING_DOWN

logger = logging.getLogger(__name__)

#: The head of a reply that is a stream of events, which nothing on its way may hold back.
EVENT_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"

#: What traces are passed on by, https://www.w3.org/TR/trace-context/
_TRACE = (b"traceparent", b"tracestate")


def headers(call: Call, seen: Observation, number: int | None = None) -> bytes:
    """Of a JSON request to an engine, as lines; `number` is for one of several requests at once.

    The id is unique over all requests, since vLLM keys its work by it.
    """
    named = seen.id_line if number is None else b"x-request-id: %b-%d\r\n" % (seen.request_id.encode(), number)
    to_send = b"content-type: application/json\r\n" + named
    if seen.trace is not None:
        return to_send + lines(seen.trace.outgoing(seen.exchanges if number is None else number))
    if b"traceparent" not in call.headers:
        return to_send
    return to_send + lines([(name, call.headers[name]) for name in _TRACE if name in call.headers])


@lru_cache(4096)
def cache_salt(tenant: str, own: str | None = None) -> msgspec.Raw:
    """What keeps a tenant's prefixes apart from those of others in the engine's cache, and by `own` from each other;
    as JSON.
    """
    return msgspec.Raw(msgspec.json.encode(blake3(f"{tenant} {own}".encode()).hexdigest(16)))


@contextmanager
def counted(metrics: Metrics, engine: str) -> Iterator[None]:
    """Counts what fails inside, unless it is the client's fault."""
    try:
        yield
    except GatewayError as error:
        count(metrics, engine, error)
        raise


def count(metrics: Metrics, engine: str, error: GatewayError) -> None:
    """Counts an error, unless it is the client's fault."""
    if error.status >= 500:
        metrics.engine_errors.labels(engine, error.code).inc()


@contextmanager
def ending_in_event(dialect: Dialect, call: Call, seen: Observation, retry_after: float) -> Iterator[None]:
    """Tells of a fault inside by an event, without what would look like success, once the reply has begun."""
    try:
        yield
    except GatewayError as fault:
        if seen.status == 0:
            raise
        logger.warning("stream failed: %s", fault.message)
        seen.error = fault.code
        call.write(error_event(dialect, fault))
        call.end()
    except asyncio.CancelledError:
        if seen.status != 0 and not call.left:
            # The drain time is over.
            stopping = EngineUnavailableError("The server is shutting down.", retry_after=retry_after)
            call.write(error_event(dialect, stopping))
            call.end()
        raise


def raise_fault(reply: Reply, body: bytes, seen: Observation, retry_after: float) -> None:
    """Raises GatewayError where an engine's whole reply is a fault, but not where it is a refusal of the request.

    `retry_after`, in seconds, is for a full or absent engine that does not say how long.
    """
    status = reply.status
    if status == 404 and b'"error"' not in body:
        raise NotFoundError(f"The model does not support {seen.path}.")
    if status < 500 and status != 429:
        return
    if SHUTTING_DOWN in body or NOT_READY in body:
        raise EngineUnavailableError("The model is restarting; try again shortly.", retry_after=retry_after)
    if status in (429, 503):
        wait = _seconds(reply.headers.get(b"retry-after"), retry_after)
        raise EngineOverloadedError("The model is busy; try again shortly.", retry_after=wait)
    logger.error("engine %s answered %d: %s", seen.engine, status, body[:500].decode(errors="replace"))
    raise EngineFailedError("The engine failed to answer the request.")


def refusal(status: int, body: bytes, dialect: Dialect, seen: Observation) -> bytes:
    """An engine's refusal of a request, in the shape of the API that was called: vLLM has several of its own."""
    try:
        said = msgspec.json.decode(body, type=_Envelope).error
    except msgspec.MsgspecError:
        said = _Said("The model refused the request.")
    seen.error, seen.reason = "refused_by_engine", said.message
    if dialect is Dialect.ANTHROPIC:
        kind = ANTHROPIC_TYPES.get(status, InvalidRequestError.type)
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": said.message}})
    param = said.param.removeprefix("body.") if said.param else None
    code = said.code if isinstance(said.code, str) else None
    return InvalidRequestError(said.message, param=param, code=code).body()


class _Said(msgspec.Struct):
    message: str
    param: str | None = None
    code: str | int | None = None


class _Envelope(msgspec.Struct):
    error: _Said


def _seconds(retry_after: bytes | None, otherwise: float) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else otherwise
