"""The inference routes as one straight line: authenticate, parse, resolve, admit, inline media, send, relay."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.access.admission import Admission
from gateway.access.keys import Access
from gateway.api.client import Receive, Scope, Send, WhileConnected, header, read_body, respond
from gateway.api.dialects import INFERENCE_PATHS, USAGE_ON_REQUEST, error_body, error_event
from gateway.api.observation import Observation
from gateway.api.relay import Relay
from gateway.catalog import Catalog, Route
from gateway.errors import (
    ClientDisconnectedError,
    EngineUnavailableError,
    GatewayError,
    MediaError,
    MediaTimeoutError,
    MethodNotAllowedError,
)
from gateway.logs import request_id
from gateway.media.inline import Inlined, Media
from gateway.metrics import Metrics
from gateway.protocol import InferenceRequest, parse
from gateway.settings import Settings
from gateway.upstream.pool import Engine

logger = logging.getLogger(__name__)

#: Fields that mean something to vLLM which no client may say: the id must be unique over all clients, and the others
#: tell an engine where to fetch caches from.
WITHHELD = ("request_id", "kv_transfer_params", "ec_transfer_params")


@dataclass(frozen=True, slots=True)
class Inference:
    """The ASGI application of every path in INFERENCE_PATHS."""

    settings: Settings
    access: Access
    catalog: Catalog
    admission: Admission
    media: Media
    engines: Mapping[str, Engine]
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Observation(scope["path"])
        token = request_id.set(seen.request_id)
        try:
            await self._answer(scope, receive, send, seen)
        except GatewayError as error:
            await self._refuse(error, send, seen)
        except ClientDisconnectedError:
            seen.status = 499
        except asyncio.CancelledError:
            await self._stop(send, seen)
            raise
        except Exception:
            logger.exception("unexpected fault")
            await self._fail(send, seen)
        finally:
            seen.record(self.metrics, access_log=self.settings.server.access_log)
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, seen: Observation) -> None:
        if scope["method"] != "POST":
            raise MethodNotAllowedError(f"{seen.path} takes POST, not {scope['method']}.")
        caller = self.access.authenticate(header(scope, b"authorization"), header(scope, b"x-api-key"))
        seen.caller = caller.id
        body = await read_body(scope, receive, self.settings.server.max_body_bytes)
        request = parse(seen.path, body)
        route = self.catalog.resolve(request.get("model", str))
        seen.model, seen.engine = route.alias, route.engine
        with self.admission.slot():
            async with WhileConnected(receive):
                inlined = await self._inline(request, route)
                await self._forward(inlined, route, scope, send, seen)

    async def _inline(self, request: InferenceRequest, route: Route) -> Inlined:
        started = time.monotonic()
        try:
            inlined = await self.media.inline(request, route.family, route.modalities)
        except (MediaError, MediaTimeoutError) as error:
            self.metrics.media_errors.labels(error.code).inc()
            raise
        if inlined.request is not request:
            self.metrics.media.observe(time.monotonic() - started)
        return inlined

    async def _forward(self, inlined: Inlined, route: Route, scope: Scope, send: Send, seen: Observation) -> None:
        hide_usage = _lacks_usage(inlined.request)
        outgoing = _for_engine(inlined.request, route, hide_usage)
        relay = Relay(
            INFERENCE_PATHS[seen.path],
            (*inlined.headers, (b"x-request-id", seen.request_id.encode())),
            hide_usage,
            self.settings.limits.retry_after_seconds,
        )
        engine = self.engines[route.engine]
        try:
            with await engine.send(b"POST", seen.path, outgoing.encode(), _headers(scope, seen)) as reply:
                await relay.run(reply, send, seen)
        except GatewayError as error:
            if error.status >= 500:
                self.metrics.engine_errors.labels(engine.name, error.code).inc()
            raise
        if seen.error is not None:
            self.metrics.stream_errors.labels(seen.model).inc()

    async def _refuse(self, error: GatewayError, send: Send, seen: Observation) -> None:
        seen.status, seen.error = error.status, error.code or error.type
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", seen.request_id.encode()),
            *error.headers(),
        ]
        await respond(send, error.status, error_body(INFERENCE_PATHS[seen.path], error), headers)

    async def _fail(self, send: Send, seen: Observation) -> None:
        """A fault of ours. Once the reply has begun only an event can tell of it."""
        fault = GatewayError("The server had an internal error.")
        if seen.status == 0:
            await self._refuse(fault, send, seen)
            return
        seen.error = fault.type
        await send({"type": "http.response.body", "body": error_event(INFERENCE_PATHS[seen.path], fault)})

    async def _stop(self, send: Send, seen: Observation) -> None:
        """The drain time is over. A stream has already been told."""
        if seen.status == 0:
            retry_after = self.settings.limits.retry_after_seconds
            await self._refuse(
                EngineUnavailableError("The server is shutting down.", retry_after=retry_after), send, seen
            )


def _lacks_usage(request: InferenceRequest) -> bool:
    """Whether this is a stream whose client does not want to hear the usage, which the gateway always does."""
    if request.path not in USAGE_ON_REQUEST or not request.get("stream", bool):
        return False
    options = request.get("stream_options", dict[str, Any]) or {}
    return not options.get("include_usage")


def _for_engine(request: InferenceRequest, route: Route, add_usage: bool) -> InferenceRequest:
    """The request in the engine's words; the very same where nothing has to change."""
    changes: dict[str, object] = {}
    if request.get("model", str) != route.served_name:
        changes["model"] = route.served_name
    if add_usage:
        options = request.get("stream_options", dict[str, Any]) or {}
        changes["stream_options"] = {**options, "include_usage": True}
    if not changes and not any(name in request.fields for name in WITHHELD):
        return request
    return request.with_fields(changes, without=WITHHELD)


def _headers(scope: Scope, seen: Observation) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", seen.request_id.encode())]
    trace = header(scope, b"traceparent")
    return headers if trace is None else [*headers, (b"traceparent", trace)]
