"""A real name server on loopback, by UDP and TCP, which says what a test wants."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.asyncresolver import Resolver
from dns.name import Name, from_text, root

#: How long "no" holds, in seconds.
_SOA = "ns. admin. 1 60 60 60 {negative_ttl}"


@dataclass
class NameServer:
    """Serves `records`: (name, type) to the TTL and the data.

    `refusals` are answers by (name, type), or by (name, None) for every type. While `silent` it says nothing. Answers
    by UDP are truncated while `truncates`. `additional` are the records that go along with every answer to SRV.
    `asked` counts what was asked for: name, type, and `udp` or `tcp`.
    """

    records: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    refusals: dict[tuple[str, str | None], dns.rcode.Rcode] = field(default_factory=dict)
    additional: list[tuple[str, str]] = field(default_factory=list)
    silent: bool = False
    truncates: bool = False
    negative_ttl: int = 0
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    port: int = 0

    def resolver(self, *search: str, ndots: int = 1, lifetime: float = 2.0) -> Resolver:
        """One that asks this server alone, with these search domains."""
        resolver = Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.port
        resolver.search, resolver.ndots, resolver.domain = [from_text(each) for each in search], ndots, root
        resolver.timeout = resolver.lifetime = lifetime
        return resolver

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """The answer to a message; None: silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name, question.rdtype.name
        self.asked[name.to_text(), kind, transport] += 1
        if self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if self.truncates and transport == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, kind)
        return response.to_wire()

    def _fill(self, response: dns.message.Message, name: Name, kind: str) -> None:
        text = name.to_text()
        refusal = self.refusals.get((text, kind), self.refusals.get((text, None)))
        if refusal is not None:
            response.set_rcode(refusal)
        elif (text, kind) in self.records:
            response.answer.append(self._rrset(text, kind))
            if kind == "SRV":
                response.additional.extend(self._rrset(*each) for each in self.additional)
        else:
            exists = any(known == text for known, _ in self.records)
            response.set_rcode(dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN)
            soa = _SOA.format(negative_ttl=self.negative_ttl)
            response.authority.append(dns.rrset.from_text(".", 60, "IN", "SOA", soa))

    def _rrset(self, name: str, kind: str) -> dns.rrset.RRset:
        ttl, data = self.records[name, kind]
        return dns.rrset.from_text(name, ttl, "IN", kind, *data)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question a connection."""
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(size), "tcp")
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Serves for the time of the block."""
    server = NameServer()
    async with await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0) as tcp:
        server.port = tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), ("127.0.0.1", server.port))
        try:
            yield server
        finally:
            udp.close()
