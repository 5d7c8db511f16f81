"""Makes what serves by the configuration out of its sections, and keeps what has not changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.access.authentication import Access
from gateway.access.jwt import Tokens
from gateway.access.keys import KeyStore
from gateway.access.quota import MemoryQuotas, Quotas
from gateway.api.accounting import KeyLabels
from gateway.app.generation import Generation, Parts
from gateway.errors import ConfigurationError
from gateway.media.inline import Media
from gateway.metrics import Metrics
from gateway.settings import AuthSettings, Settings
from gateway.upstream.pool import Engine
from gateway.usage_log import UsageLog
from gateway.usage_log.file import check as check_file

T = TypeVar("T")

#: Keys that cannot change while the gateway runs: its sockets are open.
_FIXED = ("host", "port", "admin_host", "admin_port")


def make(settings: Settings, metrics: Metrics, before: Generation | None) -> Parts:
    """The parts for `settings`, those of `before` where their section is the same.

    Raises ConfigurationError, and then nothing has changed.
    """
    if before is not None:
        _refuse_fixed(settings, before.settings)

    def kept(section: str, part: str, build: Callable[[], T]) -> T:
        if before is not None and getattr(settings, section) == getattr(before.settings, section):
            return getattr(before.parts, part)  # type: ignore[no-any-return]
        return build()

    return Parts(
        # What may be refused comes first.
        access=kept("auth", "access", lambda: access(settings)),
        usage_log=kept("usage", "usage_log", lambda: _usage_log(settings, metrics)),
        labels=kept("usage", "labels", lambda: KeyLabels(settings.usage.max_keys_in_metrics)),
        quotas=_kept_quotas(settings, before) or _quotas(settings),
        media=kept("media", "media", lambda: Media(settings.media, metrics)),
        engines={name: _engine(name, settings, before) for name in settings.engines},
    )


def check(settings: Settings) -> None:
    """Raises ConfigurationError where the gateway could not start by these settings, as far as that can be told."""
    access(settings)
    if settings.usage.file is not None:
        check_file(settings.usage.file)
    _quotas(settings)


def access(settings: Settings) -> Access:
    """Who may call, by the keys and providers that are configured. Raises ConfigurationError."""
    auth = settings.auth
    return Access.from_settings(auth, settings.server.host, keys(auth), Tokens(auth.jwt) if auth.jwt else None)


def keys(auth: AuthSettings) -> KeyStore | None:
    """The keys as their files are now; None where no file is configured. Raises ConfigurationError."""
    return None if auth.keys_file is None and auth.keys_directory is None else KeyStore.load(auth)


def _usage_log(settings: Settings, metrics: Metrics) -> UsageLog | None:
    return UsageLog(settings.usage, metrics.usage_log_faults.inc) if settings.usage.file else None


def _kept_quotas(settings: Settings, before: Generation | None) -> Quotas | None:
    """Those that were, with what they have counted: other limits need no other place to count in."""
    same = before is not None and settings.quotas.store == before.settings.quotas.store
    return before.parts.quotas if before is not None and same else None


def _quotas(settings: Settings) -> Quotas:
    if settings.quotas.store.url is None:
        return MemoryQuotas()
    # Importing it takes a third of a second.
    from gateway.access.shared import SharedQuotas

    return SharedQuotas(settings.quotas.store)


def _engine(name: str, settings: Settings, before: Generation | None) -> Engine:
    old = before.parts.engines.get(name) if before is not None else None
    return old if old is not None and old.settings == settings.engines[name] else Engine(name, settings.engines[name])


def _refuse_fixed(settings: Settings, before: Settings) -> None:
    changed = [f"server.{key}" for key in _FIXED if getattr(settings.server, key) != getattr(before.server, key)]
    if changed:
        raise ConfigurationError(
            f"{' and '.join(changed)} cannot change while the gateway runs; restart it, or change that back"
        )
