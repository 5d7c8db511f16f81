"""Which replicas the EndpointSlices of a Service name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lightkube.models.discovery_v1 import Endpoint, EndpointPort, EndpointSlice

from gateway.upstream.discovery.changes import url

#: In this order: a Pod with addresses of both families is one replica, and the first is taken.
_FAMILIES = ("IPv4", "IPv6")


def replicas(slices: Iterable[EndpointSlice], port: str | int) -> frozenset[str]:
    """The URLs of the ready endpoints that listen at `port`: its name in the Service, or its number in the Pods."""
    found: dict[str, str] = {}
    usable = [each for each in slices if each.addressType in _FAMILIES]
    for each in sorted(usable, key=lambda one: _FAMILIES.index(one.addressType)):
        number = _number(each.ports or (), port)
        if number is not None:
            for endpoint in ready(each):
                # Only the first address has a meaning.
                found.setdefault(_identity(endpoint), url(endpoint.addresses[0], number))
    return frozenset(found.values())


def ready(one: EndpointSlice) -> list[Endpoint]:
    """Those that are ready or, as the API defines, do not say. A Pod that ends is not, whatever its Service says."""
    return [each for each in one.endpoints or () if _is_ready(each)]


def _is_ready(endpoint: Endpoint) -> bool:
    conditions = endpoint.conditions
    return conditions is None or (conditions.ready is not False and not conditions.terminating)


def ports(slices: Iterable[EndpointSlice]) -> str:
    """The ports that there are, for people: `http (8000), 9000`. Empty where there is none."""
    every = {(each.port, each.name or "") for one in slices for each in one.ports or () if each.port is not None}
    return ", ".join(f"{name} ({number})" if name else str(number) for number, name in sorted(every))


def _number(offered: Iterable[EndpointPort], port: str | int) -> int | None:
    for each in offered:
        if (each.protocol or "TCP") == "TCP" and port in (each.name or "", each.port):
            return each.port
    return None


def _identity(endpoint: Endpoint) -> str:
    target = endpoint.targetRef
    return (target.uid if target else None) or endpoint.addresses[0]
