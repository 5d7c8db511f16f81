"""Replicas by DNS, from a real name server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import dns.rcode
import pytest
import pytest_asyncio
from dns.asyncresolver import Resolver
from dns.name import from_text
from dns.resolver import NoResolverConfiguration

from gateway.errors import ConfigurationError
from gateway.settings.engines import DnsSettings, Records
from gateway.upstream.discovery.names import ByDns
from gateway.upstream.discovery.records import candidates
from tests.upstream.discovery.name_server import NameServer, name_server
from tests.upstream.discovery.told import eventually, running

NAME = "engine.models."
SERVICE = "_http._tcp.engine.models."


@pytest_asyncio.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as served:
        yield served


def by_dns(resolver: Callable[[], Resolver], name: str = NAME, records: Records = Records.ADDRESS) -> ByDns:
    settings = DnsSettings(name=name, records=records, max_refresh_seconds=0.05)
    return ByDns(settings, resolver, shortest_pause=0.02)


def addresses(server: NameServer, *texts: str, name: str = NAME, ttl: int = 0) -> None:
    for kind in ("A", "AAAA"):
        data = [text for text in texts if (":" in text) == (kind == "AAAA")]
        server.records.pop((name, kind), None)
        if data:
            server.records[name, kind] = (ttl, data)


async def test_addresses_of_both_families_are_told_sorted_with_the_configured_port(server: NameServer) -> None:
    addresses(server, "10.0.0.2", "10.0.0.1", "fd00::7")

    async with running(by_dns(server.resolver)) as told:
        await told.until("http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://[fd00::7]:8000")


async def test_replicas_that_come_and_go_are_told_and_the_same_again_is_not(server: NameServer) -> None:
    addresses(server, "10.0.0.1")

    async with running(by_dns(server.resolver)) as told:
        await told.until("http://10.0.0.1:8000")
        await eventually(lambda: server.asked[NAME, "A", "udp"] > 3)
        addresses(server, "10.0.0.2")
        await told.until("http://10.0.0.2:8000")

    assert told.lists == [["http://10.0.0.1:8000"], ["http://10.0.0.2:8000"]]


async def test_truncated_answer_is_asked_for_again_by_tcp(server: NameServer) -> None:
    many = [f"10.0.{n // 200}.{n % 200 + 1}" for n in range(400)]
    addresses(server, *many)
    server.truncates = True

    async with running(by_dns(server.resolver)) as told:
        await eventually(lambda: told.lists)

    assert sorted(f"http://{each}:8000" for each in many) == told.lists[0]
    assert server.asked[NAME, "A", "tcp"] >= 1


@pytest.mark.parametrize("trouble", ["servfail", "refused", "silence"])
async def test_last_known_replicas_stay_while_the_server_fails(
    server: NameServer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    addresses(server, "10.0.0.1")

    async with running(by_dns(lambda: server.resolver(lifetime=0.05))) as told:
        await told.until("http://10.0.0.1:8000")
        if trouble == "silence":
            server.silent = True
        else:
            server.refusals[NAME, None] = dns.rcode.from_text(trouble)
        asked = server.asked.total()
        await eventually(lambda: server.asked.total() > asked + 5 and "cannot find" in caplog.text)
        assert told.lists == [["http://10.0.0.1:8000"]]
        server.silent, server.refusals = False, {}
        await eventually(lambda: "can be found again" in caplog.text)

    assert told.lists == [["http://10.0.0.1:8000"]]
    assert caplog.text.count("cannot find the replicas of DNS name engine.models.") == 1


@pytest.mark.parametrize("exists", [True, False], ids=["no-data", "no-such-name"])
async def test_name_without_addresses_is_taken_at_its_word(server: NameServer, exists: bool) -> None:
    addresses(server, "10.0.0.1")
    if exists:
        server.records[NAME, "TXT"] = (0, ["here"])

    async with running(by_dns(server.resolver)) as told:
        await told.until("http://10.0.0.1:8000")
        addresses(server)
        await told.until()


async def test_nothing_is_told_before_the_first_answer(server: NameServer) -> None:
    server.refusals[NAME, None] = dns.rcode.SERVFAIL

    async with running(by_dns(server.resolver)) as told:
        await eventually(lambda: server.asked[NAME, "A", "udp"] > 2)
        assert told.lists == []
        server.refusals = {}
        await told.until()


async def test_family_that_fails_keeps_what_is_known_of_it_while_the_other_changes(server: NameServer) -> None:
    addresses(server, "10.0.0.1", "fd00::1")

    async with running(by_dns(server.resolver)) as told:
        await told.until("http://10.0.0.1:8000", "http://[fd00::1]:8000")
        server.refusals[NAME, "AAAA"] = dns.rcode.SERVFAIL
        addresses(server, "10.0.0.2")
        await told.until("http://10.0.0.2:8000", "http://[fd00::1]:8000")


async def test_ttl_of_the_answer_is_kept(server: NameServer) -> None:
    addresses(server, "10.0.0.1", "fd00::1", ttl=30)
    settings = DnsSettings(name=NAME, max_refresh_seconds=3600)

    async with running(ByDns(settings, server.resolver, shortest_pause=0.01)) as told:
        await told.until("http://10.0.0.1:8000", "http://[fd00::1]:8000")
        await asyncio.sleep(0.2)

    assert server.asked[NAME, "A", "udp"] == 1


async def test_name_is_looked_for_in_the_search_domains(server: NameServer) -> None:
    addresses(server, "10.0.0.1", name="engine.models.svc.cluster.local.")
    server.refusals["engine.corp.", None] = dns.rcode.SERVFAIL

    def resolver() -> Resolver:
        return server.resolver("corp.", "models.svc.cluster.local.", ndots=5)

    async with running(by_dns(resolver, "engine")) as told:
        await told.until("http://10.0.0.1:8000")


async def test_search_domain_that_fails_makes_no_empty_pool(server: NameServer) -> None:
    addresses(server, "10.0.0.1", name="engine.corp.")

    async with running(by_dns(lambda: server.resolver("corp."), "engine")) as told:
        await told.until("http://10.0.0.1:8000")
        server.refusals["engine.corp.", None] = dns.rcode.SERVFAIL
        asked = server.asked["engine.", "A", "udp"]
        await eventually(lambda: server.asked["engine.", "A", "udp"] > asked + 1)
        assert told.lists == [["http://10.0.0.1:8000"]]


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        ("a.b.", 5, ["a.b."]),
        ("a", 1, ["a.x.", "a.y.", "a."]),
        ("a.b", 1, ["a.b.", "a.b.x.", "a.b.y."]),
        ("a.b", 2, ["a.b.x.", "a.b.y.", "a.b."]),
        ("a", 0, ["a.", "a.x.", "a.y."]),
    ],
)
def test_names_are_tried_in_the_order_of_the_system(name: str, ndots: int, expected: list[str]) -> None:
    found = candidates(from_text(name, origin=None), [from_text("x."), from_text("y.")], ndots)

    assert [each.to_text() for each in found] == expected


async def test_missing_resolv_conf_is_a_failure_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    def resolver() -> Resolver:
        raise NoResolverConfiguration

    async with running(by_dns(resolver)) as told:
        await eventually(lambda: "resolv.conf cannot be read" in caplog.text)

    assert told.lists == []


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64])
def test_what_is_no_name_is_refused_at_once_with_an_example(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no DNS name; write one such as"):
        ByDns(DnsSettings(name=name))


def services(server: NameServer, *texts: str) -> None:
    server.records[SERVICE, "SRV"] = (0, list(texts))


async def test_services_tell_the_ports_and_only_the_lowest_priority_counts(server: NameServer) -> None:
    services(server, "1 10 8001 a.models.", "1 90 8002 b.models.", "2 1 8003 c.models.")
    for host, address in (("a", "10.0.0.1"), ("b", "fd00::2"), ("c", "10.0.0.3")):
        addresses(server, address, name=f"{host}.models.")

    async with running(by_dns(server.resolver, SERVICE, Records.SRV)) as told:
        await told.until("http://10.0.0.1:8001", "http://[fd00::2]:8002")

    assert server.asked["c.models.", "A", "udp"] == 0


async def test_addresses_that_come_along_with_services_are_not_asked_for(server: NameServer) -> None:
    services(server, "0 0 8000 a.models.", "0 0 8000 b.models.")
    addresses(server, "10.0.0.1", name="a.models.")
    addresses(server, "10.0.0.2", name="b.models.")
    server.additional = [("a.models.", "A")]

    async with running(by_dns(server.resolver, SERVICE, Records.SRV)) as told:
        await told.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")

    assert server.asked["a.models.", "A", "udp"] == 0
    assert server.asked["b.models.", "A", "udp"] >= 1


async def test_target_with_both_families_is_one_replica(server: NameServer) -> None:
    services(server, "0 0 8000 a.models.")
    addresses(server, "10.0.0.1", "fd00::1", name="a.models.")

    async with running(by_dns(server.resolver, SERVICE, Records.SRV)) as told:
        await told.until("http://10.0.0.1:8000")


async def test_target_that_cannot_be_asked_for_leaves_everything_as_it_was(server: NameServer) -> None:
    services(server, "0 0 8000 a.models.")
    addresses(server, "10.0.0.1", name="a.models.")

    async with running(by_dns(server.resolver, SERVICE, Records.SRV)) as told:
        await told.until("http://10.0.0.1:8000")
        server.refusals["a.models.", "A"] = dns.rcode.SERVFAIL
        asked = server.asked["a.models.", "A", "udp"]
        await eventually(lambda: server.asked["a.models.", "A", "udp"] > asked + 1)
        assert told.lists == [["http://10.0.0.1:8000"]]


@pytest.mark.parametrize("texts", [["0 0 0 ."], []], ids=["service-not-offered", "no-such-name"])
async def test_services_that_are_not_offered_are_an_empty_pool(server: NameServer, texts: list[str]) -> None:
    if texts:
        services(server, *texts)

    async with running(by_dns(server.resolver, SERVICE, Records.SRV)) as told:
        await told.until()


async def test_changes_are_logged_with_what_was_added_and_removed(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    addresses(server, "10.0.0.1", "10.0.0.2")

    async with running(by_dns(server.resolver)) as told:
        await told.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")
        addresses(server, "10.0.0.2", "10.0.0.3")
        await told.until("http://10.0.0.2:8000", "http://10.0.0.3:8000")

    last = caplog.records[-1]
    assert last.getMessage() == "replicas of DNS name engine.models.: 2"
    assert vars(last)["fields"] == {"added": "http://10.0.0.3:8000", "removed": "http://10.0.0.1:8000"}
