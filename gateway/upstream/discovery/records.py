"""Asks DNS for records, and looks a name up in the search domains of the system as the system does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dns.asyncbackend import get_backend
from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.message import QueryMessage
from dns.name import Name, root
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.resolver import NXDOMAIN
from dns.rrset import RRset


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS says of one name and type, for `ttl` seconds. With a `fault` it says nothing, and there are no records.

    No records and no fault: a server that is well says that there are none. `additional` came along unasked.
    """

    kind: RdataType
    records: tuple[Rdata, ...] = ()
    ttl: float = 0
    additional: tuple[RRset, ...] = ()
    fault: str | None = None


async def ask(resolver: Resolver, name: Name, kind: RdataType) -> Answer:
    """Asks for exactly this name. An answer too large for UDP is asked for again by TCP."""
    try:
        found = await resolver.resolve(
            name, kind, raise_on_no_answer=False, search=False, backend=get_backend("asyncio")
        )
    except NXDOMAIN as nothing:
        return Answer(kind, ttl=_negative_ttl(nothing, name))
    except (DNSException, OSError) as fault:
        return Answer(kind, fault=str(fault) or type(fault).__name__)
    ttl = found.chaining_result.minimum_ttl
    return Answer(kind, tuple(found.rrset or ()), ttl, tuple(found.response.additional))


def _negative_ttl(nothing: NXDOMAIN, name: Name) -> float:
    """For how long the name does not exist, in seconds. RFC 2308, section 5."""
    response: QueryMessage = nothing.kwargs["responses"][name]
    return response.resolve_chaining().minimum_ttl


async def ask_all(resolver: Resolver, name: Name, *kinds: RdataType) -> list[Answer]:
    """Asks for several types of the name at the same time; the answers in the order of the types."""
    return await asyncio.gather(*(ask(resolver, name, kind) for kind in kinds))


async def search(resolver: Resolver, name: Name, *kinds: RdataType) -> list[Answer]:
    """The answers for the first name with records of those that `name` may mean; where none has any, the worst.

    "The worst" has a fault if one of the names could not be asked for: it may be the one that is meant.
    """
    empty: list[Answer] | None = None
    for candidate in candidates(name, _suffixes(resolver), 1 if resolver.ndots is None else resolver.ndots):
        answers = await ask_all(resolver, candidate, *kinds)
        if any(answer.records for answer in answers):
            return answers
        empty = answers if empty is None else [_worse(*pair) for pair in zip(empty, answers, strict=True)]
    return empty or []


def candidates(name: Name, suffixes: list[Name], ndots: int) -> list[Name]:
    """What a name may mean, the likeliest first: as it is, or in one of the domains. See resolv.conf(5)."""
    if name.is_absolute():
        return [name]
    absolute, within = name.concatenate(root), [name.concatenate(suffix) for suffix in suffixes]
    dots = len(name) - 1
    return [absolute, *within] if dots >= ndots else [*within, absolute]


def _suffixes(resolver: Resolver) -> list[Name]:
    if resolver.search:
        return list(resolver.search)
    return [] if resolver.domain in (None, root) else [resolver.domain]


def _worse(one: Answer, other: Answer) -> Answer:
    if one.fault or other.fault:
        return one if one.fault else other
    return min(one, other, key=lambda answer: answer.ttl)
