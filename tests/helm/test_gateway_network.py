"""Whom the gateway chart's NetworkPolicies let in, and where they let gateways go."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.helm.rendering import Object, helm_template, of_kind

LEAST: dict[str, Any] = {"engines": {"default": {"dns": {"name": "e"}}}, "models": {"gemma": {"served_name": "g"}}}


def policies(config: dict[str, Any], **values: Any) -> dict[str, Object]:
    network = {"enabled": True} | values.pop("network", {})
    objects = helm_template("gateway", {"config": LEAST | config, "networkPolicy": network} | values)
    return {found["metadata"]["name"]: found["spec"] for found in of_kind(objects, "NetworkPolicy")}


def egress(config: dict[str, Any], **values: Any) -> list[Object]:
    return list(policies(config, **values)["gemma-gateway"]["egress"])


def ports(rule: Object) -> list[object]:
    return [each["port"] for each in rule["ports"]]


def reachable(rules: list[Object], address: str, port: int) -> bool:
    """Whether a rule's blocks of addresses let a connection through."""
    blocks = [peer["ipBlock"] for rule in rules if port in ports(rule) for peer in rule["to"] if "ipBlock" in peer]
    return any(
        ip_address(address) in ip_network(block["cidr"])
        and not any(ip_address(address) in ip_network(each) for each in block.get("except", []))
        for block in blocks
    )


PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]
INSIDE = ["10.0.0.1", "172.16.5.5", "192.168.1.1", "100.64.0.1", "169.254.169.254", "127.0.0.1", "198.18.0.1"]
INSIDE_6 = ["fd00:ec2::254", "fe80::1", "::1", "2001:db8::1", "64:ff9b::a00:1", "2002:a00:1::"]


@pytest.mark.parametrize("address", PUBLIC)
def test_media_are_fetched_from_public_addresses(address: str) -> None:
    assert reachable(egress({}), address, 443)
    assert reachable(egress({}), address, 80)
    assert not reachable(egress({}), address, 22)


@pytest.mark.parametrize("address", INSIDE + INSIDE_6)
def test_and_from_no_other(address: str) -> None:
    assert not reachable(egress({}), address, 443)


def test_networks_that_the_configuration_allows_are_reached() -> None:
    assert reachable(egress({"media": {"allowed_networks": ["10.1.0.0/16"]}}), "10.1.2.3", 443)


def test_networks_that_are_denied_are_not_reached() -> None:
    denied = egress({}, network={"deniedNetworks": ["203.0.0.0/16", "2606::/16"]})
    assert not reachable(denied, "203.0.1.1", 443)
    assert not reachable(denied, PUBLIC[2], 443)


def test_a_gateway_that_fetches_nothing_goes_nowhere() -> None:
    assert not reachable(egress({"media": {"fetch": False}}), PUBLIC[0], 443)


def test_unless_it_needs_the_keys_of_a_token_provider() -> None:
    company = {"auth": {"jwt": {"a": {"issuer": "https://login.example.com", "audience": ["gemma"]}}}}
    assert reachable(egress(company | {"media": {"fetch": False}}), PUBLIC[0], 443)


def test_engines_and_dns_are_reached_by_their_labels() -> None:
    rules = egress({"media": {"fetch": False}})
    assert [ports(rule) for rule in rules] == [[53, 53], [8000]]
    labels = {"app.kubernetes.io/part-of": "gemma-gateway", "app.kubernetes.io/component": "engine"}
    assert rules[1]["to"] == [{"podSelector": {"matchLabels": labels}}]


def test_a_store_of_ones_own_is_reached_at_the_port_of_its_url() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}]
    for url, port in (("rediss://valkey.data.svc:6380/0", 6380), ("redis://valkey.data.svc/0", 6379)):
        rules = egress({"quotas": {"store": {"url": url}}}, network={"store": peers})
        assert [rule["to"] for rule in rules if ports(rule) == [port]] == [peers]


def test_everyone_may_call_the_api_and_prometheus_alone_read_metrics() -> None:
    incoming = policies({})["gemma-gateway"]["ingress"]
    assert [ports(rule) for rule in incoming] == [["http"], ["admin"]]
    assert "from" not in incoming[0]
    assert incoming[1]["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


def test_where_clients_are_named_helm_test_is_let_in_beside_them() -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"team": "search"}}}]
    incoming = policies({}, network={"clients": clients})["gemma-gateway"]["ingress"][0]["from"]
    assert incoming[0] == clients[0]
    assert incoming[1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_valkey_is_for_gateways_alone_and_goes_nowhere() -> None:
    found = policies({}, valkey={"enabled": True})["gemma-gateway-valkey"]
    assert "egress" not in found
    assert found["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = found["ingress"]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]] == ["gateway"]
