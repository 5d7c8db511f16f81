"""Finds replicas by the EndpointSlices of a Kubernetes Service, and watches them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Never

from httpx2 import HTTPStatusError, TransportError
from lightkube import ApiError, AsyncClient
from lightkube.models.discovery_v1 import EndpointSlice as Slice
from lightkube.operators import Operator
from lightkube.resources.discovery_v1 import EndpointSlice

from gateway.settings.engines import KubernetesSettings
from gateway.upstream.discovery import OnChange, cluster, endpoints
from gateway.upstream.discovery.changes import Replicas, backoff

logger = logging.getLogger(__name__)

#: Seconds after which the server ends a watch; then all is listed anew, so that nothing missed stays missed.
_WATCH_SECONDS = 300

#: Seconds after which a watch is given up that the server should have ended.
_GRACE_SECONDS = 15

#: Seconds. A list and a watch that took longer went well.
_GOOD_SECONDS = 3.0

#: Seconds between two attempts.
_LONGEST_PAUSE = 30.0

#: As the library types them.
Labels = dict[str, str | Operator[Any] | Iterable[Any] | None]

_FORBIDDEN, _GONE = 403, 410


class BySlices:
    """Replicas by the ready endpoints of a Service.

    `connect` makes a client for one list and one watch. `shortest_pause` is in seconds, after a first failure.
    """

    def __init__(
        self, settings: KubernetesSettings, connect: Callable[[], AsyncClient], *, shortest_pause: float = 0.5
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._shortest_pause = shortest_pause
        self._watch_failed = False
        self._doubted: str | None = None

    async def run(self, on_change: OnChange) -> Never:
        """Lists and watches, again and again, until cancelled."""
        replicas = Replicas(f"Kubernetes Service {self._settings.service}", on_change)
        short = 0
        while True:
            begun = time.monotonic()
            await self._attempt(replicas)
            short = 1 if time.monotonic() - begun > _GOOD_SECONDS else short + 1
            # Spread, because all gateways lose the same server at the same time.
            spread = random.uniform(0.5, 1)  # noqa: S311 - no secret
            await asyncio.sleep(spread * backoff(short, self._shortest_pause, _LONGEST_PAUSE))

    async def _attempt(self, replicas: Replicas) -> None:
        try:
            # In a thread: it reads files, and at first it loads a good part of the library.
            client = await asyncio.to_thread(self._connect)
            try:
                await self._follow(client, replicas)
            finally:
                await client.close()
        except Exception as fault:  # noqa: BLE001 - whatever it is, those known stay and the next attempt may succeed
            replicas.failed(_explained(fault))

    async def _follow(self, client: AsyncClient, replicas: Replicas) -> None:
        """One list, and one watch until it ends. Raises what went wrong, unless it was merely the watch's end."""
        known, version = await self._list(client)
        self._tell(known.values(), replicas)
        if not self._watch_failed:
            replicas.healthy()
        self._watch_failed = True
        try:
            await self._watch(client, known, version, replicas)
        except (TransportError, TimeoutError):
            # It was ended, cut or silent for too long; whether the server is well, the next list shows.
            pass
        except HTTPStatusError as fault:
            if _status(fault) != _GONE:
                raise
        self._watch_failed = False

    async def _list(self, client: AsyncClient) -> tuple[dict[str, Slice], str]:
        listed = client.list(EndpointSlice, namespace=self._settings.namespace, labels=self._labels)
        return {_name(each): each async for each in listed}, listed.resourceVersion

    async def _watch(self, client: AsyncClient, known: dict[str, Slice], version: str, replicas: Replicas) -> None:
        """Heeds every event, until the watch ends. Raises the library's errors, and TimeoutError."""
        events = client.watch(
            EndpointSlice,
            namespace=self._settings.namespace,
            labels=self._labels,
            server_timeout=_WATCH_SECONDS,
            resource_version=version,
        )
        async with asyncio.timeout(_WATCH_SECONDS + _GRACE_SECONDS):
            async for kind, each in events:
                known.pop(_name(each), None)
                if kind != "DELETED":
                    known[_name(each)] = each
                self._tell(known.values(), replicas)
                replicas.healthy()

    @property
    def _labels(self) -> Labels:
        return {"kubernetes.io/service-name": self._settings.service}

    def _tell(self, slices: Collection[Slice], replicas: Replicas) -> None:
        found = endpoints.replicas(slices, self._settings.port)
        doubt = None if found else _doubt(slices, self._settings)
        if doubt and doubt != self._doubted:
            logger.warning("Kubernetes Service %s %s", self._settings.service, doubt)
        self._doubted = doubt
        replicas.found(found)


def discovery_by_kubernetes(settings: KubernetesSettings) -> BySlices:
    """Asks the cluster that the gateway runs in. Raises ConfigurationError where it runs in none."""
    configuration = cluster.in_cluster()
    return BySlices(settings, lambda: cluster.connect(configuration))


def _name(one: Slice) -> str:
    return (one.metadata.name if one.metadata else None) or ""


def _doubt(slices: Collection[Slice], settings: KubernetesSettings) -> str | None:
    """What may be wrong with the configuration where no replica is found; None where there is just none ready."""
    if not slices:
        return "has no EndpointSlices; are `service` and `namespace` right?"
    if any(map(endpoints.ready, slices)):
        return (
            f"has no port {settings.port!r} but {endpoints.ports(slices) or 'none at all'}; set `port` to one of these"
        )
    return None


def _explained(fault: Exception) -> str:
    # The first line: the library adds where to read on.
    told = (str(fault) or type(fault).__name__).splitlines()[0]
    if _status(fault) == _FORBIDDEN:
        return f"{told}; the gateway's service account needs the Role of docs/discovery.md: " + _ROLE
    return told


_ROLE = "apiGroups [discovery.k8s.io], resources [endpointslices], verbs [get, list, watch]"


def _status(fault: Exception) -> int | None:
    """The status of an answer, or of an error within a watch."""
    if isinstance(fault, ApiError) and fault.status is not None:
        return fault.status.code
    return fault.response.status_code if isinstance(fault, HTTPStatusError) else None
