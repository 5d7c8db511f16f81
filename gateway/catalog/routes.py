"""Routes: all that a request by one name to one model needs, worked out once, when the configuration is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.settings import Deprecation, Limits, ModelSettings, ResponseModel
from gateway.settings.consistency import CATCH_ALL, FACTS

#: Characters. A longer name, which only a catch-all can be asked by, is not repeated in every event of a stream.
LONGEST_ECHO = 256

Headers = tuple[tuple[bytes, bytes], ...]
Models = Mapping[str, ModelSettings]
_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Where a request goes, and what becomes of it on the way. Routes are compared by identity."""

    alias: str
    """The configured name that was called, `*` for the catch-all: one of few, so safe as a metric's label."""
    target: str
    """The configured name of the model that answers; the alias itself where it has no targets."""
    base: str | None
    """The configured name of which that model is an adapter; None where it is none."""
    engine: str
    """Key of the engine under `engines`."""
    served_name: str
    """The engine's name for the model."""
    served: msgspec.Raw
    """The same as JSON."""
    model: ModelSettings
    """The settings of the alias, with the engine, the served name and the facts of the model that answers."""
    defaults: Mapping[str, msgspec.Raw]
    """Fields for requests that lack them, as JSON; those of the alias win over the target's."""
    overrides: Mapping[str, msgspec.Raw]
    """Fields for all requests, likewise. They win over all defaults."""
    head: bytes
    """For every reply, as lines: `x-gemma-model`, and `Deprecation`, `Sunset` and `Link` where the alias goes away."""
    limited: tuple[tuple[str, Limits], ...]
    """The names, of alias and target, that have limits of their own, with those: a request counts for both."""
    rename: bytes | None
    """What replies must carry as `model`, as JSON, where that is always the same; see `reply_name`."""
    rename_from: bytes
    """How an engine writes its own name for the model in a reply: `"model":"…"`."""
    renaming: tuple[bytes, bytes] | None
    """That, and what stands in its place, where that is always the same. One for all replies: each token needs it."""
    echoes: bool
    """Whether replies carry the name that the client used, which is another for each request: the catch-all."""
    fallbacks: tuple[Route, ...]
    """Tried in order where the engine is unavailable or overloaded. They have none themselves."""

    @property
    def limits(self) -> Limits:
        """The limits of the alias alone; `limited` has those of the target too."""
        return self.model.limits

    def reply_name(self, requested: str | None) -> bytes | None:
        """What the reply to a request for that name must carry as `model`, as JSON; None: what the engine says."""
        if not self.echoes:
            return self.rename
        if not requested or requested == self.served_name or len(requested) > LONGEST_ECHO:
            return None
        return msgspec.json.encode(requested)


def build(alias: str, target: str, models: Models) -> Route:
    """The route from the name `alias` to the model `target`, with its fallbacks. `models` must be consistent."""
    # A fallback to the model that has just failed would try it twice.
    names = [name for name in models[alias].fallbacks or models[target].fallbacks if name != target]
    return _build(alias, target, models, tuple(_build(alias, name, models, ()) for name in names))


def _build(alias: str, target: str, models: Models, fallbacks: tuple[Route, ...]) -> Route:
    called, answering = models[alias], models[target]
    served_name = answering.served_name or target
    source = models[answering.base] if answering.base is not None else answering
    by_request = called.response_model is ResponseModel.REQUESTED
    rename = msgspec.json.encode(alias) if by_request and alias not in (served_name, CATCH_ALL) else None
    rename_from = b'"model":' + msgspec.json.encode(served_name)
    return Route(
        alias=alias,
        target=target,
        base=answering.base,
        engine=source.engine,
        served_name=served_name,
        served=msgspec.Raw(msgspec.json.encode(served_name)),
        model=_with_facts(called, source, served_name),
        defaults=_encoded(answering.defaults, called.defaults),
        overrides=_encoded(answering.overrides, called.overrides),
        head=_head(served_name if target == CATCH_ALL else target, called.deprecated),
        limited=_limited((alias, target), models),
        rename=rename,
        rename_from=rename_from,
        renaming=(rename_from, b'"model":' + rename) if rename is not None else None,
        echoes=by_request and alias == CATCH_ALL,
        fallbacks=fallbacks,
    )


def _with_facts(called: ModelSettings, source: ModelSettings, served_name: str) -> ModelSettings:
    facts = {name: getattr(source, name) for name in ("engine", *FACTS)}
    return called.model_copy(update={**facts, "served_name": served_name})


def _encoded(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, msgspec.Raw]:
    fields = {**below, **above}
    return MappingProxyType({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()})


def _limited(names: Sequence[str], models: Models) -> tuple[tuple[str, Limits], ...]:
    return tuple((name, models[name].limits) for name in dict.fromkeys(names) if models[name].limits != _NO_LIMITS)


def _head(answers: str, deprecated: Deprecation | None) -> bytes:
    fields = [(b"x-gemma-model", _in_url(answers).encode()), *(_farewell(deprecated) if deprecated else ())]
    return b"".join(b"%b: %b\r\n" % field for field in fields)


def _farewell(deprecated: Deprecation) -> Headers:
    """Deprecation (RFC 9745: a structured date), Sunset (RFC 8594: an HTTP date), Link (RFC 5829: its relation)."""
    headers = [(b"deprecation", b"@%d" % _midnight(deprecated.since).timestamp())]
    if deprecated.sunset is not None:
        headers.append((b"sunset", format_datetime(_midnight(deprecated.sunset), usegmt=True).encode()))
    if deprecated.successor is not None:
        link = f'</v1/models/{_in_url(deprecated.successor)}>; rel="successor-version"'
        headers.append((b"link", link.encode()))
    return tuple(headers)


def _midnight(day: date) -> datetime:
    """When that day begins, in UTC."""
    return datetime.combine(day, time(), UTC)


def _in_url(name: str) -> str:
    """Printable ASCII, and usual names as they are."""
    return quote(name, safe="/:@")
