"""Decides which IP addresses may be fetched from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
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


def may_fetch(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether `address` is public, or within one of the networks that the operator has allowed."""
    return is_public(address) or any(address in network for network in allowed)


def is_public(address: Address) -> bool:
    """Whether `address` belongs to the internet at large, as far as its number can tell."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INSIDE_V4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _PUBLIC_V6 and not any(address in network for network in _INSIDE_V6)
