"""Finds replicas by DNS, and asks again as the TTL of the answer is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Never

from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.name import Name, empty, from_text, root
from dns.rdatatype import RdataType
from dns.rdtypes.IN.SRV import SRV
from dns.rrset import RRset

from gateway.errors import ConfigurationError
from gateway.settings.engines import DnsSettings, Records
from gateway.upstream.discovery import OnChange
from gateway.upstream.discovery.changes import Replicas, backoff, url
from gateway.upstream.discovery.records import Answer, ask_all, search

#: Questions about the targets of SRV records that are open at the same time.
_QUESTIONS = 16


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found: the replicas (None: unknown), for how many seconds, and what went wrong."""

    urls: tuple[str, ...] | None
    ttl: float = 0
    fault: str | None = None


class ByDns:
    """Replicas by the records of a name.

    `resolver` makes the resolver for each look, so that a change of resolv.conf is heeded. `shortest_pause` is in
    seconds: between two looks at least, and after a first failure. Raises ConfigurationError for what is no name.
    """

    def __init__(
        self, settings: DnsSettings, resolver: Callable[[], Resolver] = Resolver, *, shortest_pause: float = 1.0
    ) -> None:
        self._settings = settings
        self._name = _name(settings.name)
        self._resolver = resolver
        self._shortest_pause = shortest_pause

    async def run(self, on_change: OnChange) -> Never:
        """Looks again and again, until cancelled."""
        replicas = Replicas(f"DNS name {self._settings.name}", on_change)
        failures = 0
        while True:
            look = await self._look(replicas.urls or ())
            failures = failures + 1 if look.fault else 0
            _tell(replicas, look)
            await asyncio.sleep(self._pause(look, failures))

    def _pause(self, look: Look, failures: int) -> float:
        longest = max(self._shortest_pause, self._settings.max_refresh_seconds)
        if failures:
            return backoff(failures, self._shortest_pause, longest)
        return min(longest, max(self._shortest_pause, look.ttl))

    async def _look(self, known: Iterable[str]) -> Look:
        try:
            resolver = self._resolver()
        except (DNSException, OSError) as fault:
            return Look(None, fault=f"resolv.conf cannot be read: {fault}")
        if self._settings.records is Records.SRV:
            return await _by_service(resolver, self._name)
        families = await search(resolver, self._name, RdataType.A, RdataType.AAAA)
        return _by_addresses(families, self._settings.port, known)


def discovery_by_dns(settings: DnsSettings) -> ByDns:
    """Asks the system's name servers. Raises ConfigurationError for what is no name."""
    return ByDns(settings)


def _name(text: str) -> Name:
    try:
        # Relative unless it ends with a dot: then the search domains do not apply.
        name = from_text(text, origin=None)
    except (DNSException, UnicodeError) as fault:
        raise ConfigurationError(_not_a_name(text)) from fault
    if name in (empty, root):
        raise ConfigurationError(_not_a_name(text))
    return name


def _not_a_name(text: str) -> str:
    return f"{text!r} is no DNS name; write one such as `dns: {{name: gemma-engine.models.svc.cluster.local}}`"


def _tell(replicas: Replicas, look: Look) -> None:
    if look.urls is not None:
        replicas.found(look.urls)
    if look.fault is None:
        replicas.healthy()
    else:
        replicas.failed(look.fault)


def _by_addresses(families: list[Answer], port: int, known: Iterable[str]) -> Look:
    """Both families together; one that could not be asked for keeps what is known of it."""
    faults = {family.kind: family.fault for family in families if family.fault}
    fault = next(iter(faults.values()), None)
    if not any(family.records for family in families):
        return Look(None, fault=fault) if fault else Look((), _smallest_ttl(families))
    found = {url(record.to_text(), port) for family in families for record in family.records}
    kept = {each for each in known if _family(each) in faults}
    return Look(tuple(found | kept), _smallest_ttl(families), fault)


def _family(replica: str) -> RdataType:
    return RdataType.AAAA if "[" in replica else RdataType.A


def _smallest_ttl(answers: Iterable[Answer]) -> float:
    return min((answer.ttl for answer in answers if not answer.fault), default=0)


async def _by_service(resolver: Resolver, name: Name) -> Look:
    """The targets of the lowest priority. Weights are ignored: the pool balances by load."""
    [services] = await search(resolver, name, RdataType.SRV)
    if services.fault:
        return Look(None, fault=services.fault)
    offered = [record for record in services.records if isinstance(record, SRV) and record.target != root]
    lowest = min((record.priority for record in offered), default=0)
    chosen = [record for record in offered if record.priority == lowest]
    hosts = await _hosts(resolver, {record.target for record in chosen}, services.additional)
    fault = next((answer.fault for answer in hosts.values() if answer.fault), None)
    if fault:
        return Look(None, fault=fault)
    urls = {url(address.to_text(), each.port) for each in chosen for address in hosts[each.target].records}
    return Look(tuple(urls), _smallest_ttl([services, *hosts.values()]))


async def _hosts(resolver: Resolver, targets: set[Name], additional: Iterable[RRset]) -> dict[Name, Answer]:
    """The addresses of each target: those that came along, else asked for."""
    hosts = {target: _came_along(target, additional) for target in targets}
    questions = asyncio.Semaphore(_QUESTIONS)

    async def host(target: Name) -> Answer:
        async with questions:
            return _one_family(await ask_all(resolver, target, RdataType.A, RdataType.AAAA))

    missing = [target for target, answer in hosts.items() if answer is None]
    asked = dict(zip(missing, await asyncio.gather(*map(host, missing)), strict=True))
    return asked | {target: answer for target, answer in hosts.items() if answer is not None}


def _came_along(target: Name, additional: Iterable[RRset]) -> Answer | None:
    for kind in (RdataType.A, RdataType.AAAA):
        for rrset in additional:
            if rrset.name == target and rrset.rdtype == kind:
                return Answer(kind, tuple(rrset), rrset.ttl)
    return None


def _one_family(families: list[Answer]) -> Answer:
    """A target is one host: by IPv6 only where it has no IPv4, lest it be taken for two replicas."""
    ipv4, ipv6 = families
    return ipv4 if ipv4.records or ipv4.fault else ipv6
