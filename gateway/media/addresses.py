"""Decides which hosts and IP addresses may be fetched from. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: IANA's special-purpose registry (https://www.iana.org/assignments/iana-ipv4-special-registry), multicast and the
#: reserved 240.0.0.0/4, spelled out because Python's own lists change between patch releases. 168.63.129.16 is a
#: public number that means the platform's own services inside Azure.
_INSIDE_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

#: All that is public in IPv6 (https://www.iana.org/assignments/ipv6-address-space): unique local, link-local,
#: multicast, loopback, IPv4-mapped and IPv4-compatible addresses lie outside of it.
_PUBLIC_V6 = IPv6Network("2000::/3")

#: Special within it: protocol assignments with Teredo (2001::/32), documentation, 6to4. The tunnels carry an IPv4
#: address inside and nobody serves media over them.
_INSIDE_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

#: What DNS64 makes of a public IPv4 address in a cluster that has IPv6 alone (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")

#: Bits 64 to 95 of an ISATAP address, a third tunnel, under any prefix (RFC 5214, section 6.1).
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def may_fetch(address: Address, allowed: Sequence[Network], denied: Sequence[Network] = ()) -> bool:
    """Whether `address` is public or in an allowed network, and in no denied one."""
    if any(one in network for network in denied for one in (address, _embedded(address))):
        return False
    return is_public(address) or any(address in network for network in allowed)


def is_public(address: Address) -> bool:
    """Whether `address` belongs to the internet at large, as far as its number can tell."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INSIDE_V4)
    if address in _NAT64:
        return is_public(_embedded(address))
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return False
    return address in _PUBLIC_V6 and not any(address in network for network in _INSIDE_V6)


def _embedded(address: Address) -> Address:
    """The IPv4 address in the last 32 bits, where NAT64 or a mapping has put one; else the address itself."""
    if isinstance(address, IPv6Address) and (address in _NAT64 or address.ipv4_mapped):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_listed(host: str, patterns: Collection[str]) -> bool:
    """Whether a host's name, in lower case and ASCII, is one of `patterns` or lies below a `*.domain` among them."""
    labels = host.split(".")
    above = (".".join(["*", *labels[i:]]) for i in range(1, len(labels)))
    return host in patterns or any(name in patterns for name in above)
