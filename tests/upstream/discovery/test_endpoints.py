"""Which replicas EndpointSlices name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from lightkube.models.discovery_v1 import EndpointSlice

from gateway.upstream.discovery import endpoints
from tests.upstream.discovery.kubernetes_api import endpoint, endpoint_slice


def replicas(*slices: dict[str, Any], port: str | int = "http") -> list[str]:
    return sorted(endpoints.replicas([msgspec.convert(each, EndpointSlice) for each in slices], port))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"ready": None}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        # A Service with publishNotReadyAddresses calls all of them ready.
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"ready": True, "terminating": False}, True),
    ],
)
def test_endpoint_counts_if_it_is_ready_and_stays(conditions: dict[str, bool | None], expected: bool) -> None:
    found = replicas(endpoint_slice("a", endpoint("10.0.0.1") | {"conditions": conditions}))

    assert found == (["http://10.0.0.1:8000"] if expected else [])


def test_endpoint_without_conditions_is_ready() -> None:
    assert replicas(endpoint_slice("a", {"addresses": ["10.0.0.1"]})) == ["http://10.0.0.1:8000"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("http", ["http://10.0.0.1:8000"]), (9000, ["http://10.0.0.1:9000"]), ("grpc", []), (80, [])],
)
def test_port_is_found_by_name_or_number(wanted: str | int, expected: list[str]) -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"), ports={"metrics": 9000, "http": 8000})

    assert replicas(one, port=wanted) == expected


def test_port_without_a_name_is_found_by_its_number() -> None:
    assert replicas(endpoint_slice("a", endpoint("10.0.0.1"), ports={"": 8000}), port=8000) == ["http://10.0.0.1:8000"]


def test_named_port_may_have_another_number_in_each_slice() -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"), ports={"http": 8000})
    other = endpoint_slice("b", endpoint("10.0.0.2"), ports={"http": 8001})

    assert replicas(one, other) == ["http://10.0.0.1:8000", "http://10.0.0.2:8001"]


def test_port_of_another_protocol_does_not_count() -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"))
    one["ports"] = [{"name": "http", "port": 8000, "protocol": "UDP"}]

    assert replicas(one) == []


def test_addresses_of_ipv6_are_told_in_brackets() -> None:
    assert replicas(endpoint_slice("a", endpoint("fd00::1"), family="IPv6")) == ["http://[fd00::1]:8000"]


@pytest.mark.parametrize("order", [1, -1])
def test_pod_with_both_families_is_one_replica(order: int) -> None:
    slices = [
        endpoint_slice("a", endpoint("10.0.0.1", pod="p")),
        endpoint_slice("b", endpoint("fd00::1", pod="p"), endpoint("fd00::2", pod="q"), family="IPv6"),
    ]

    assert replicas(*slices[::order]) == ["http://10.0.0.1:8000", "http://[fd00::2]:8000"]


def test_endpoint_in_two_slices_is_one_replica() -> None:
    assert replicas(*(endpoint_slice(name, endpoint("10.0.0.1")) for name in "ab")) == ["http://10.0.0.1:8000"]


def test_names_in_place_of_addresses_are_left_out() -> None:
    assert replicas(endpoint_slice("a", endpoint("engine.example"), family="FQDN")) == []


def test_slice_without_endpoints_or_ports_is_empty() -> None:
    assert replicas(endpoint_slice("a") | {"endpoints": None, "ports": None}) == []
