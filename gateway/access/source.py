"""The address that a request came from, and what of it failures are counted by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Where there is no address, as behind a Unix socket.
UNKNOWN = "unknown"

#: Whoever has one IPv6 address usually has all 2**64 beside it (RFC 6177).
_IPV6_PREFIX = 64


def address(peer: str | None, forwarded: Iterable[bytes], trusted: Sequence[Network]) -> str:
    """Whom the request came from: the peer, or the one that a trusted proxy says it stands for.

    `forwarded` holds the values of X-Forwarded-For in the order of the headers. Each proxy adds at the end the address
    that it was called from, so that the right-most address that is no trusted proxy's is the last that can be
    believed: what stands to the left of it anyone may have written.
    """
    found = _parse(peer or "")
    if found is None or not _within(found, trusted):
        return str(found) if found else peer or UNKNOWN
    for entry in reversed(b",".join(forwarded).split(b",")):
        before = _parse(entry.decode("latin-1").strip())
        if before is None:
            break
        found = before
        if not _within(found, trusted):
            break
    return str(found)


def counted_by(source: str) -> str:
    """What failures of an address are counted by: the address, or for IPv6 its /64."""
    found = _parse(source)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), _IPV6_PREFIX), strict=False))
    return str(found) if found else source


def _parse(text: str) -> Address | None:
    """The address; `1.2.3.4:567` and `[::1]:567`, as some proxies write it, are read too."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _within(found: Address, networks: Sequence[Network]) -> bool:
    return any(found in network for network in networks)
