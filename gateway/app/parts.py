"""Makes what serves by the configuration out of its sections, and keeps what has not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from gateway import tracing
from gateway.access.authentication import Access
from gateway.access.jwt import Tokens
from gateway.access.keys import KeyStore
from gateway.access.quota import MemoryQuotas, Quotas
from gateway.api.accounting import KeyLabels
from gateway.app.generation import Generation, Parts
from gateway.errors import ConfigurationError
from gateway.media.inline import Media
from gateway.metrics import Metrics
from gateway.settings import AuthSettings, Grant, Settings
from gateway.tracing import Tracer
from gateway.upstream.discovery import discovery
from gateway.upstream.pool import Engine
from gateway.usage_log import UsageLog
from gateway.usage_log.file import check as check_file

T = TypeVar("T")

#: Keys that cannot change while the gateway runs: its sockets are open.
_FIXED = ("host", "port", "reuse_port", "admin_host", "admin_port")

#: Hosts that stand for every address of the machine.
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def make(settings: Settings, metrics: Metrics, before: Generation | None) -> Parts:
    """The parts for `settings`, those of `before` where their section is the same.

    Raises ConfigurationError, and then nothing has changed.
    """
    _require_enough(settings)
    if before is not None:
        _refuse_fixed(settings, before.settings)

    def kept(section: str, part: str, build: Callable[[], T]) -> T:
        if before is not None and getattr(settings, section) == getattr(before.settings, section):
            return getattr(before.parts, part)  # type: ignore[no-any-return]
        return build()

    return Parts(
        # What may be refused comes first.
        access=kept("auth", "access", lambda: access(settings)),
        tracer=kept("tracing", "tracer", lambda: Tracer.of(settings.tracing)),
        usage_log=kept("usage", "usage_log", lambda: _usage_log(settings, metrics)),
        labels=kept("usage", "labels", lambda: KeyLabels(settings.usage.max_keys_in_metrics)),
        quotas=_kept_quotas(settings, before),
        media=kept("media", "media", lambda: Media(settings.media, metrics)),
        engines={name: _engine(name, settings, metrics, before) for name in settings.engines},
    )


def check(settings: Settings) -> None:
    """Raises ConfigurationError where the gateway could not start by these settings, as far as that can be told."""
    _require_enough(settings)
    access(settings)
    tracing.check(settings.tracing)
    for engine in settings.engines.values():
        # A cluster's own addresses can be told inside of it alone.
        if engine.kubernetes is None:
            discovery(engine)
    if settings.usage.file is not None:
        check_file(settings.usage.file)
    _quotas(settings)


def doubts(settings: Settings) -> list[str]:
    """What the gateway can start with, but nobody can have meant: patterns for models that no name matches.

    Raises ConfigurationError where keys cannot be read.
    """
    holders: dict[str, list[str]] = {}
    for holder, grant in _grants(settings):
        for pattern in grant.models or ():
            holders.setdefault(pattern, []).append(holder)
    return [
        f"no name under models matches {pattern!r}, which {_first_of(those)} may use"
        for pattern, those in holders.items()
        if not any(fnmatchcase(name, pattern) for name in settings.models)
    ]


def _grants(settings: Settings) -> Iterator[tuple[str, Grant]]:
    """Whoever may do something, and what."""
    for provider, token in settings.auth.jwt.items():
        for name, grant in token.grants.items():
            yield f"auth.jwt.{provider}.grants.{name}", grant
    store = keys(settings.auth)
    for entry in store.entries.values() if store is not None else ():
        yield f"the key {entry.caller.id} ({entry.caller.name})", entry.caller.grant


def _first_of(holders: Sequence[str]) -> str:
    others = len(holders) - 1
    return f"{holders[0]} and {others} more" if others else holders[0]


def _require_enough(settings: Settings) -> None:
    """Raises ConfigurationError where nothing could be answered by these settings, or not at both addresses."""
    server = settings.server
    if not settings.engines or not settings.models:
        raise ConfigurationError(_example(list(settings.engines)))
    if server.port and server.port == server.admin_port and _overlap(server.host, server.admin_host):
        raise ConfigurationError(
            f"server.port and server.admin_port are both {server.port}, and one address cannot be both; "
            f"choose another, such as  admin_port: {server.port % 65535 + 1}"
        )


def _example(engines: Sequence[str]) -> str:
    """What to add to a configuration that has these engines, and no model."""
    missing = "model" if engines else "engine"
    engine = "" if engines else "  engines:\n    default: {url: 'http://127.0.0.1:8001'}\n"
    of = f"engine: {engines[0]}, " if engines and "default" not in engines else ""
    model = f"  models:\n    gemma: {{{of}served_name: google/gemma-3-4b-it}}"
    return f"no {missing} is configured; add to the configuration file:\n{engine}{model}"


def _overlap(host: str, other: str) -> bool:
    """Whether one port cannot be had at both."""
    both = {"127.0.0.1" if each == "localhost" else each for each in (host, other)}
    return len(both) == 1 or not both.isdisjoint(_ALL_ADDRESSES)


def access(settings: Settings) -> Access:
    """Who may call, by the keys and providers that are configured. Raises ConfigurationError."""
    auth = settings.auth
    return Access.from_settings(auth, settings.server.host, keys(auth), Tokens(auth.jwt) if auth.jwt else None)


def keys(auth: AuthSettings) -> KeyStore | None:
    """The keys as their files are now; None where no file is configured. Raises ConfigurationError."""
    return None if auth.keys_file is None and auth.keys_directory is None else KeyStore.load(auth)


def _usage_log(settings: Settings, metrics: Metrics) -> UsageLog | None:
    return UsageLog(settings.usage, metrics.usage_log_faults.inc) if settings.usage.file else None


def _kept_quotas(settings: Settings, before: Generation | None) -> Quotas:
    """Those that were, with what they have counted: other limits need no other place to count in."""
    if before is not None and settings.quotas.store == before.settings.quotas.store:
        return before.parts.quotas
    return _quotas(settings)


def _quotas(settings: Settings) -> Quotas:
    if settings.quotas.store.url is None:
        return MemoryQuotas()
    # Importing it takes a third of a second.
    from gateway.access.shared import SharedQuotas

    return SharedQuotas(settings.quotas.store)


def _engine(name: str, settings: Settings, metrics: Metrics, before: Generation | None) -> Engine:
    old = before.parts.engines.get(name) if before is not None else None
    if old is not None and old.settings == settings.engines[name]:
        return old
    engine = Engine(name, settings.engines[name])
    _show(engine, metrics)
    return engine


def _show(engine: Engine, metrics: Metrics) -> None:
    """Has the metrics tell of an engine."""

    def count(_: str, event: str) -> None:
        metrics.engine_events.labels(engine.name, event).inc()

    engine.on_event = count
    metrics.engine_held.labels(engine.name).set_function(lambda: engine.held)
    metrics.engine_in_flight.labels(engine.name).set_function(lambda: engine.in_flight)
    metrics.engine_replicas.labels(engine.name, "known").set_function(lambda: len(engine.replicas))
    metrics.engine_replicas.labels(engine.name, "usable").set_function(lambda: engine.usable)


def forget(engine: str, metrics: Metrics) -> None:
    """Has the metrics tell no more of an engine that is gone."""
    for family in (metrics.engine_ready, metrics.engine_held, metrics.engine_in_flight):
        family.remove(engine)
    for state in ("known", "usable"):
        metrics.engine_replicas.remove(engine, state)


def _refuse_fixed(settings: Settings, before: Settings) -> None:
    changed = [f"server.{key}" for key in _FIXED if getattr(settings.server, key) != getattr(before.server, key)]
    if changed:
        raise ConfigurationError(
            f"{' and '.join(changed)} cannot change while the gateway runs; restart it, or change that back"
        )
