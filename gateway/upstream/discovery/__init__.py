"""Where the replicas of an engine are, now and as they come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.errors import ConfigurationError
from gateway.settings.engines import DnsSettings, EngineSettings, KubernetesSettings

#: Takes the URLs of all replicas, sorted: `http://host:port` (IPv6 in brackets), or `unix:/path/to/socket`.
OnChange = Callable[[Sequence[str]], None]


class Discovery(Protocol):
    """One way to find the replicas of an engine."""

    async def run(self, on_change: OnChange) -> None:
        """Tells all replicas at first, and all again whenever they differ, until it is cancelled.

        A failure to ask changes nothing: the last known replicas stay, and it asks again. Static ones are told once,
        and then it returns. Raises ConfigurationError where it could never work.
        """


class Static:
    """Replicas that the configuration names."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(sorted(urls))

    async def run(self, on_change: OnChange) -> None:
        """Tells them, once."""
        on_change(self._urls)


def discovery(settings: EngineSettings) -> Discovery:
    """The way that the configuration chose. Raises ConfigurationError where that cannot work here."""
    if settings.dns:
        return _by_dns(settings.dns)
    if settings.kubernetes:
        return _by_kubernetes(settings.kubernetes)
    return Static((settings.url,) if settings.url else settings.urls)


def _by_dns(settings: DnsSettings) -> Discovery:
    # Imported here: who names every replica needs no resolver.
    from gateway.upstream.discovery.names import discovery_by_dns

    return discovery_by_dns(settings)


def _by_kubernetes(settings: KubernetesSettings) -> Discovery:
    try:
        # Imported here: its library is an extra.
        from gateway.upstream.discovery.slices import discovery_by_kubernetes
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"engines by `kubernetes` need {missing.name}, which is not installed: "
            "pip install 'gemma-gateway[kubernetes]'"
        ) from missing
    return discovery_by_kubernetes(settings)
