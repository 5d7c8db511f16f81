"""The inference routes as one straight line: authenticate, parse, resolve, admit, inline media, send, relay."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.api import exchange
from gateway.api.client import Receive, Scope, Send, WhileConnected
from gateway.api.dialects import INFERENCE_PATHS, USAGE_ON_REQUEST
from gateway.api.edge import Edge
from gateway.api.observation import Observation
from gateway.api.relay import Relay
from gateway.catalog import Route
from gateway.errors import MediaError, MediaTimeoutError
from gateway.media.inline import Inlined, Media
from gateway.protocol import InferenceRequest, parse
from gateway.upstream.pool import Engine

#: Fields that mean something to vLLM which no client may say: the id must be unique over all clients, and the others
#: tell an engine where to fetch caches from.
WITHHELD = ("request_id", "kv_transfer_params", "ec_transfer_params")

#: Routes for which vLLM has a prefix cache, and takes its salt.
SALTED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"})


@dataclass(frozen=True, slots=True)
class Inference:
    """The ASGI application of every path in INFERENCE_PATHS."""

    edge: Edge
    media: Media
    engines: Mapping[str, Engine]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.edge.run(self._answer, INFERENCE_PATHS[scope["path"]], scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, seen: Observation) -> None:
        request = parse(seen.path, await self.edge.body(scope, receive, seen))
        route = self.edge.route(request.get("model", str), seen)
        with self.edge.admission.slot():
            async with WhileConnected(receive):
                inlined = await self._inline(request, route, self.edge.tenant(seen))
                await self._forward(inlined, route, scope, send, seen)

    async def _inline(self, request: InferenceRequest, route: Route, tenant: str | None) -> Inlined:
        started = time.monotonic()
        try:
            inlined = await self.media.inline(request, route.model, tenant)
        except (MediaError, MediaTimeoutError) as error:
            self.edge.metrics.media_errors.labels(error.code).inc()
            raise
        if inlined.request is not request:
            self.edge.metrics.media.observe(time.monotonic() - started)
        return inlined

    async def _forward(self, inlined: Inlined, route: Route, scope: Scope, send: Send, seen: Observation) -> None:
        hide_usage = _lacks_usage(inlined.request)
        outgoing = _for_engine(inlined.request, route, hide_usage, self.edge.tenant(seen))
        relay = Relay(
            INFERENCE_PATHS[seen.path],
            (*inlined.headers, (b"x-request-id", seen.request_id.encode())),
            hide_usage,
            inlined.tokens,
            self.edge.settings.limits.retry_after_seconds,
        )
        engine = self.engines[route.engine]
        to_send = exchange.headers(scope, seen.request_id)
        with (
            exchange.counted(self.edge.metrics, engine.name),
            await engine.send(b"POST", seen.path, outgoing.encode(), to_send) as reply,
        ):
            if reply.status == 400:
                await self._explain(inlined)
            await relay.run(reply, send, seen)
        if seen.error is not None and seen.status == 200:
            self.edge.metrics.stream_errors.labels(seen.model).inc()

    async def _explain(self, inlined: Inlined) -> None:
        """Raises MediaError where an image that the engine got unseen is why it refused the request."""
        try:
            await self.media.explain(inlined)
        except MediaError as error:
            self.edge.metrics.media_errors.labels(error.code).inc()
            raise


def _lacks_usage(request: InferenceRequest) -> bool:
    """Whether this is a stream whose client does not want to hear the usage, which the gateway always does."""
    if request.path not in USAGE_ON_REQUEST or not request.get("stream", bool):
        return False
    options = request.get("stream_options", dict[str, Any]) or {}
    return not options.get("include_usage")


def _for_engine(request: InferenceRequest, route: Route, add_usage: bool, tenant: str | None) -> InferenceRequest:
    """The request in the engine's words; the very same where nothing has to change."""
    changes: dict[str, object] = {}
    if request.get("model", str) != route.served_name:
        changes["model"] = route.served_name
    if add_usage:
        options = request.get("stream_options", dict[str, Any]) or {}
        changes["stream_options"] = {**options, "include_usage": True}
    if tenant is not None and request.path in SALTED:
        changes["cache_salt"] = exchange.cache_salt(tenant, request.get("cache_salt", str))
    if not changes and not any(name in request.fields for name in WITHHELD):
        return request
    return request.with_fields(changes, without=WITHHELD)
