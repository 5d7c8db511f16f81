"""An exchange with an engine, from the edge's side: the headers it gets, and what its failures mean to a client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.api.client import Scope, header
from gateway.api.observation import Observation
from gateway.errors import EngineFailedError, EngineUnavailableError, GatewayError, NotFoundError, OverloadedError
from gateway.metrics import Metrics
from gateway.upstream.pool import Reply

logger = logging.getLogger(__name__)

#: What vLLM says in a 500 when a request comes while it shuts down.
SHUTTING_DOWN = b"cannot schedule new futures"
#: What our engine process says while it is warming up or draining.
NOT_READY = b'"engine_unavailable"'


def headers(scope: Scope, identifier: str) -> list[tuple[bytes, bytes]]:
    """Of a JSON request to an engine. `identifier` is unique over all requests, since vLLM keys its work by it."""
    to_send = [(b"content-type", b"application/json"), (b"x-request-id", identifier.encode())]
    trace = header(scope, b"traceparent")
    return to_send if trace is None else [*to_send, (b"traceparent", trace)]


@contextmanager
def counted(metrics: Metrics, engine: str) -> Iterator[None]:
    """Counts what fails inside, unless it is the client's fault."""
    try:
        yield
    except GatewayError as error:
        if error.status >= 500:
            metrics.engine_errors.labels(engine, error.code).inc()
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
        raise OverloadedError("The model is busy; try again shortly.", retry_after=wait)
    logger.error("engine %s answered %d: %s", seen.engine, status, body[:500].decode(errors="replace"))
    raise EngineFailedError("The engine failed to answer the request.")


def _seconds(retry_after: bytes | None, otherwise: float) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else otherwise
