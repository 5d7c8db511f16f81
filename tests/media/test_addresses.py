"""Which addresses may be fetched from."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from gateway.media.addresses import is_listed, is_public, may_fetch


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.0.1.1"])
def test_public_ipv4_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", ["2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::8.8.8.8"])
def test_public_ipv6_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",  # noqa: S104 - judged, not bound to
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_special_ipv4_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2a00:1450:4001:800:0:5efe:127.0.0.1",
        "2a00:1450:4001:800:200:5efe:8.8.8.8",
    ],
)
def test_special_ipv6_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


def test_an_allowed_network_may_be_fetched_from_although_it_is_not_public() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    tried = ["10.1.2.3", "fd00::1", "10.2.0.1", "127.0.0.1", "8.8.8.8"]
    assert [may_fetch(ip_address(text), allowed) for text in tried] == [True, True, False, False, True]


def test_a_denied_network_may_not_be_fetched_from_although_it_is_public_or_allowed() -> None:
    allowed = [ip_network("10.0.0.0/8"), ip_network("::ffff:0:0/96")]
    denied = [ip_network("10.1.0.0/16"), ip_network("8.8.8.0/24"), ip_network("2606:4700::/32")]
    tried = [
        "10.2.0.1",
        "10.1.0.1",
        "8.8.8.8",
        "8.8.4.4",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
        "2606:4700::1",
        "2a00::1",
    ]
    permitted = [text for text in tried if may_fetch(ip_address(text), allowed, denied)]
    assert permitted == ["10.2.0.1", "8.8.4.4", "2a00::1"]


def test_a_host_is_listed_by_its_name_or_by_a_domain_above_it() -> None:
    patterns = ("media.example", "*.cdn.example")
    tried = ["media.example", "a.media.example", "cdn.example", "a.cdn.example", "a.b.cdn.example", "xcdn.example", "*"]
    assert [host for host in tried if is_listed(host, patterns)] == [
        "media.example",
        "a.cdn.example",
        "a.b.cdn.example",
    ]
