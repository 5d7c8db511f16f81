"""The inference routes as one straight line: authenticate, parse, resolve, charge, admit, inline media, send, relay."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from gateway.api import affinity, exchange, routing
from gateway.api.call import Call, lines
from gateway.api.comments import Comments
from gateway.api.dialects import INFERENCE_PATHS, USAGE_ON_REQUEST
from gateway.api.edge import Edge
from gateway.api.estimate import estimate
from gateway.api.observation import Observation
from gateway.api.relay import Relay, Rename
from gateway.catalog import Route
from gateway.errors import (
    EngineOverloadedError,
    EngineUnavailableError,
    GatewayError,
    InvalidRequestError,
    MediaError,
    MediaTimeoutError,
)
from gateway.media.inline import Inlined, Media
from gateway.protocol import InferenceRequest, parse
from gateway.upstream.connecting import unavailable
from gateway.upstream.pool import Engine

#: Fields that mean something to vLLM which no client may say: the id must be unique over all clients, and the others
#: tell an engine where to fetch caches from.
WITHHELD = frozenset({"request_id", "kv_transfer_params", "ec_transfer_params"})
#: The same where vLLM's scheduler takes no priority.
WITHHELD_UNRANKED = WITHHELD | {"priority"}

#: Routes for which vLLM has a prefix cache, and takes its salt.
SALTED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"})

#: Routes for which vLLM's scheduler takes a priority.
RANKED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"})


@dataclass(frozen=True, slots=True)
class Inference:
    """Answers the calls of every path in INFERENCE_PATHS."""

    edge: Edge
    media: Media
    engines: Mapping[str, Engine]

    def __call__(self, call: Call) -> Coroutine[Any, Any, None]:
        """Answers a call."""
        return self.edge.run(self._answer, INFERENCE_PATHS[call.path], call)

    async def _answer(self, call: Call, seen: Observation) -> None:
        edge = self.edge
        body = edge.body_now(call, seen)
        request = parse(seen.path, await edge.body(call, seen) if body is None else body)
        name = request.get("model", str)
        route = routing.resolve(edge.catalog, name, routing.user_of(request), call, seen)
        effective = routing.with_policy(request, route)
        seen.stream = bool(effective.get("stream", bool))
        await edge.charge(seen, estimate(effective, request.text_bytes, edge.answer_tokens, route.model.max_model_len))
        if not edge.admission.enter():
            await edge.wait(seen)
        try:
            if route.fallbacks:
                await self._exchange(request, route, call, seen)
            else:
                await self._ask(request, route, call, seen)
        finally:
            edge.admission.leave()

    async def _exchange(self, request: InferenceRequest, chosen: Route, call: Call, seen: Observation) -> None:
        """Asks an engine, and where that cannot take the request now, the next, as long as nothing was answered."""
        busy: GatewayError | None = None
        routes = routing.in_order(chosen, self.engines)
        for route in routes:
            try:
                # Only the last one is waited for.
                return await self._ask(request, route, call, seen, hold=route is routes[-1])
            except (EngineUnavailableError, EngineOverloadedError) as error:
                if seen.status:
                    raise
                busy = error
            except InvalidRequestError:
                # What a fallback does not see, hear or know is no fault of the request.
                if route is chosen:
                    raise
        # The chosen one was among them, and has not answered.
        raise busy or unavailable()

    async def _ask(
        self, request: InferenceRequest, route: Route, call: Call, seen: Observation, *, hold: bool = True
    ) -> None:
        request = routing.with_policy(request, route)
        inlined = self.media.untouched(request) or await self._inline(request, route, seen)
        if route is not seen.route:
            routing.note(route, seen, self.edge.metrics)
        rename = routing.rename(route, request) if route.echoes else route.renaming
        await self._forward(inlined, route, rename, call, seen, hold=hold)

    async def _inline(self, request: InferenceRequest, route: Route, seen: Observation) -> Inlined:
        started = time.monotonic()
        check = seen.caller.check_modality if seen.caller else None
        try:
            inlined = await self.media.inline(request, route.model, self.edge.tenant(seen), check)
        except (MediaError, MediaTimeoutError) as error:
            self.edge.metrics.media_errors.labels(error.code).inc()
            raise
        if inlined.request is not request:
            self.edge.metrics.media.observe(time.monotonic() - started)
            seen.note_phase("media", started)
        if inlined.tokens and not seen.media_tokens:
            seen.media_tokens = inlined.tokens
            if seen.entry is not None:
                await seen.entry.add(sum(inlined.tokens.values()))
        return inlined

    async def _forward(
        self, inlined: Inlined, route: Route, rename: Rename, call: Call, seen: Observation, *, hold: bool
    ) -> None:
        edge, request, dialect = self.edge, inlined.request, INFERENCE_PATHS[seen.path]
        tenant = edge.tenant(seen)
        hide_usage = seen.stream and _lacks_usage(request)
        outgoing = _for_engine(request, route, hide_usage, tenant, _priority(request, seen))
        engine = self.engines[route.engine]
        comments = self._comments(call, route, seen) if edge.comment_seconds and seen.stream else None
        hints = partial(affinity.hints, outgoing, call.headers.get(routing.SESSION_HEADER), tenant)
        seen.sent = time.monotonic()
        try:
            to_send = exchange.headers(call, seen)
            edge.accounting.while_waiting()
            with await engine.send(
                b"POST", seen.path, outgoing.encode(), to_send, model=route.served_name, hints=hints, hold=hold
            ) as reply:
                seen.replica = reply.choice.replica.name
                if reply.status == 400:
                    await self._explain(inlined)
                headers = routing.headers(route, seen)
                if inlined.headers:
                    headers = lines(inlined.headers) + headers
                if engine.settings.routing.explain:
                    headers += routing.explanation(reply.choice)
                relay = Relay(
                    call,
                    seen,
                    dialect,
                    headers,
                    hide_usage,
                    inlined.tokens,
                    rename,
                    edge.retry_after_seconds,
                    edge.tells_speed,
                )
                await relay.run(reply)
        except GatewayError as error:
            exchange.count(edge.metrics, engine.name, error)
            seen.note_exchange(route, error.code or error.type)
            raise
        finally:
            if comments is not None:
                comments.stop()
        seen.note_exchange(route, seen.error)
        if seen.error is not None and seen.status == 200:
            edge.metrics.stream_errors.labels(seen.model).inc()

    def _comments(self, call: Call, route: Route, seen: Observation) -> Comments:
        headers = exchange.EVENT_STREAM + routing.headers(route, seen)
        return Comments(call, self.edge.comment_seconds, headers)

    async def _explain(self, inlined: Inlined) -> None:
        """Raises MediaError where an image that the engine got unseen is why it refused the request."""
        try:
            await self.media.explain(inlined)
        except MediaError as error:
            self.edge.metrics.media_errors.labels(error.code).inc()
            raise


def _lacks_usage(request: InferenceRequest) -> bool:
    """Whether the client of this stream does not want to hear the usage, which the gateway always does."""
    if request.path not in USAGE_ON_REQUEST:
        return False
    options = request.get("stream_options", dict[str, Any]) or {}
    return not options.get("include_usage")


def _priority(request: InferenceRequest, seen: Observation) -> int | None:
    """The request's rank in vLLM's scheduler, lower first; None where nothing has to be said. The client's own wish
    can only put it behind where its key would.
    """
    if seen.path not in RANKED:
        return None
    least = seen.caller.grant.priority if seen.caller else 0
    wish = request.get("priority", int) if "priority" in request.fields else None
    if wish is None:
        return least or None
    return max(wish, least)


def _for_engine(
    request: InferenceRequest, route: Route, add_usage: bool, tenant: str | None, priority: int | None
) -> InferenceRequest:
    """The request in the engine's words; the very same where nothing has to change."""
    fields = request.fields
    changes: dict[str, msgspec.Raw] = {}
    if fields.get("model") != route.served:
        changes["model"] = route.served
    if add_usage:
        options = request.get("stream_options", dict[str, Any]) or {}
        changes["stream_options"] = _raw({**options, "include_usage": True})
    if tenant is not None and request.path in SALTED:
        own = request.get("cache_salt", str) if "cache_salt" in fields else None
        changes["cache_salt"] = exchange.cache_salt(tenant, own)
    if priority is not None and priority != request.get("priority", int):
        changes["priority"] = _raw(priority)
    withheld = WITHHELD if request.path in RANKED else WITHHELD_UNRANKED
    unwanted = not withheld.isdisjoint(fields)
    if not changes and not unwanted:
        return request
    return request.with_raw({}, changes, without=withheld if unwanted else ())


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
