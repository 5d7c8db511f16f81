"""Whom a request came from, through proxies or not, and whom its failures are counted for."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.access.source import address, counted_by

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", [b"198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
        ("fd00::1", [b"2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b"1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", [b"1.1.1.1", b"198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [b"\xff\xfe"], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", [b"[2001:db8::7]:4711"], "2001:db8::7"),
        (None, [b"198.51.100.1"], "unknown"),
        ("", [], "unknown"),
        ("testclient", [b"198.51.100.1"], "testclient"),
    ],
)
def test_address_is_the_last_that_can_be_believed(peer: str | None, forwarded: list[bytes], expected: str) -> None:
    assert address(peer, forwarded, TRUSTED) == expected


def test_nobody_is_trusted_unless_configured() -> None:
    assert address("10.0.0.1", [b"198.51.100.1"], []) == "10.0.0.1"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_failures_are_counted_by_address_or_ipv6_network(source: str, expected: str) -> None:
    assert counted_by(source) == expected
