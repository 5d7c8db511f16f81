"""Where a request goes: its route by model, user and session, the order of engines to try, and what that changes."""

from __future__ import annotations

import random
from collections.abc import Mapping

from gateway.api.call import Call
from gateway.api.observation import Observation
from gateway.catalog import Catalog, Choice, Route, sticky_unit
from gateway.metrics import Metrics
from gateway.protocol import InferenceRequest
from gateway.settings import Sticky
from gateway.upstream import policies
from gateway.upstream.pool import Engine
from gateway.upstream.replica import Replica

SESSION_HEADER = b"x-session-id"

#: Characters of a user that are kept of it.
_LONGEST_USER = 256

#: Where requests may say for which of the caller's users they are.
_USER_FIELDS = ("safety_identifier", "user")


def resolve(catalog: Catalog, name: str | None, user: str | None, call: Call, seen: Observation) -> Route:
    """The route of a request for the model `name`, noted in `seen`.

    Raises InvalidRequestError, ModelNotFoundError or PermissionDeniedError.
    """
    caller = seen.caller
    choice = catalog.resolve(name, caller.may_use) if caller else catalog.resolve(name)
    seen.user = user
    route = seen.route = choice.only or choice.route(_unit(choice, call, seen))
    if caller is not None:
        caller.check_model(choice.alias, name)
    return route


def _unit(choice: Choice, call: Call, seen: Observation) -> float:
    """From 0 to below 1: which of the targets."""
    value: str | None = None
    if choice.sticky is Sticky.SESSION:
        value = call.headers.get(SESSION_HEADER, b"").decode("latin-1")
    elif choice.sticky is Sticky.USER:
        value = seen.user or (seen.caller.id if seen.caller else None)
    return sticky_unit(choice.alias, value) if value else random.random()  # noqa: S311 - shares, no secrets


def user_of(request: InferenceRequest) -> str | None:
    """For whom the caller asks, as OpenAI's fields and Anthropic's have it; None where that is no text."""
    for name in _USER_FIELDS:
        if name in request.fields and isinstance(user := request.get(name, object), str) and user:
            return user[:_LONGEST_USER]
    if request.path == "/v1/messages" and "metadata" in request.fields:
        metadata = request.get("metadata", object)
        user = metadata.get("user_id") if isinstance(metadata, dict) else None
        return user[:_LONGEST_USER] if isinstance(user, str) and user else None
    return None


def with_policy(request: InferenceRequest, route: Route) -> InferenceRequest:
    """The request with the fields that the configuration gives it; the very same where there are none."""
    if not route.defaults and not route.overrides:
        return request
    return request.with_raw(route.defaults, route.overrides)


def in_order(route: Route, engines: Mapping[str, Engine]) -> tuple[Route, ...]:
    """The route and its fallbacks, those first whose engines are known to be ready."""
    if not route.fallbacks:
        return (route,)
    return tuple(sorted((route, *route.fallbacks), key=lambda each: not engines[each.engine].ready))


def note(route: Route, seen: Observation, metrics: Metrics) -> None:
    """Notes which route is being tried, and counts a fallback, which has none itself."""
    if route is not seen.route:
        seen.route = route
        if not route.fallbacks:
            metrics.fallbacks.labels(route.alias, route.target).inc()


def headers(route: Route, seen: Observation) -> bytes:
    """What every reply says, as lines: the model that answers, the limits that are left, the request's id."""
    limits = seen.entry.head if seen.entry is not None else b""
    return b"%b%b%b" % (route.head, limits, seen.id_line)


def explanation(choice: policies.Choice[Replica]) -> bytes:
    """Why that replica was chosen, as a line."""
    told = f"replica={choice.replica.name}; load={choice.replica.load:g}; reason={choice.reason}"
    return b"x-gemma-routing: %b\r\n" % told.encode("ascii", "replace")


def rename(route: Route, request: InferenceRequest) -> tuple[bytes, bytes] | None:
    """How the engine's name for the model stands in a reply, and what it becomes; None where it stays."""
    if not route.echoes:
        return route.renaming
    name = route.reply_name(request.get("model", str))
    return None if name is None else (route.rename_from, b'"model":' + name)
