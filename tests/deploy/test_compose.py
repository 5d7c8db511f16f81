"""The compose file, as the real client reads it: what each service may do, and that all it names is there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from tests.deploy.test_dockerfile import PROJECT, ROOT, STAGES, tool

COMPOSE = ROOT / "deploy" / "compose.yaml"
EIGHT = ROOT / "deploy" / "examples" / "eight-gpus.compose.yaml"
PROFILES = ("gpu", "cpu", "tools")

#: They run once, and end.
ONCE = {"keys", "demo-model"}

#: It has no program that could ask, and nobody waits for it.
UNASKED = {"dcgm-exporter"}

Service = Mapping[str, Any]


@cache
def resolved(*files: Path) -> Mapping[str, Any]:
    """What `docker compose config` makes of the files, all profiles on, without anybody's environment."""
    words = [word for file in files for word in ("--file", str(file))]
    profiles = [word for profile in PROFILES for word in ("--profile", profile)]
    told = subprocess.run(
        [tool("docker-compose"), *words, *profiles, "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin"},
    )
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    document: dict[str, Any] = json.loads(told.stdout)
    return document


def services() -> Mapping[str, Service]:
    found: Mapping[str, Service] = resolved(COMPOSE)["services"]
    return found


def ours(service: Service) -> bool:
    return "/gemma-gateway/" in str(service["image"])


def test_every_service_is_there() -> None:
    assert services().keys() == {
        *("gateway", "keys", "engine", "engine-cpu", "demo-model"),
        *("valkey", "prometheus", "grafana", "dcgm-exporter"),
    }


def test_engines_run_by_profile_alone() -> None:
    profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert profiles == {
        "engine": ["gpu"],
        "dcgm-exporter": ["gpu"],
        "engine-cpu": ["cpu"],
        "demo-model": ["cpu"],
        "keys": ["tools"],
    }


def test_images_are_pinned() -> None:
    unpinned = [s["image"] for s in services().values() if not re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", s["image"])]
    assert unpinned == []
    assert {s["image"].rpartition(":")[2] for s in services().values() if ours(s)} == {PROJECT["version"]}


def test_no_service_may_write_or_rise() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert "docker.sock" not in str(service.get("volumes")), name


def test_only_this_machine_is_let_in_and_to_the_engines_nobody() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.keys() == {"gateway", "prometheus", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert [port["target"] for port in published["gateway"]] == [8000]


def test_what_serves_is_looked_after() -> None:
    for name, service in services().items():
        if name in ONCE | UNASKED:
            assert service["healthcheck"] == {"disable": True}, name
        elif not ours(service):
            assert service["healthcheck"]["test"][0] == "CMD", name
        else:
            # By the image's own check.
            assert "healthcheck" not in service, name
            assert STAGES[service["build"]["target"]].all("HEALTHCHECK")
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name


def test_memory_and_processes_are_bounded_save_those_of_engines() -> None:
    for name in services().keys() - ONCE - {"engine", "engine-cpu"}:
        assert services()[name]["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}, name


def test_the_ranks_of_an_engine_have_memory_to_share() -> None:
    assert {int(services()[name]["shm_size"]) for name in ("engine", "engine-cpu")} == {8 * 2**30}


def test_what_is_mounted_is_there() -> None:
    document = resolved(COMPOSE)
    for service in services().values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert volume["read_only"] is True
                assert Path(volume["source"]).exists(), volume["source"]
            else:
                assert volume["source"] in document["volumes"]


def test_gateway_is_given_more_time_to_stop_than_it_takes() -> None:
    config = settings.load(ROOT / "deploy" / "compose" / "config.yaml")
    assert services()["gateway"]["stop_grace_period"] == "1m15s"
    assert config.server.drain_seconds < 75
    for name in ("engine", "engine-cpu"):
        assert f"--drain-seconds={config.server.drain_seconds:.0f}" in services()[name]["command"]


def test_gateway_finds_the_engine_that_runs() -> None:
    engine = settings.load(ROOT / "deploy" / "compose" / "config.yaml").engines["default"]
    assert engine.dns is not None
    for name in ("engine", "engine-cpu"):
        service = services()[name]
        assert engine.dns.name in service["networks"]["engines"]["aliases"]
        assert f"--port={engine.dns.port}" in service["command"]
        assert "--host=0.0.0.0" in service["command"]
    assert "engines" in services()["gateway"]["networks"]


def test_gateway_counts_quotas_in_the_valkey_beside_it() -> None:
    store = settings.load(ROOT / "deploy" / "compose" / "config.yaml").quotas.store
    assert store is not None
    assert store.url == "redis://valkey:6379/0"
    assert resolved(COMPOSE)["networks"]["store"]["internal"] is True


def test_prometheus_reads_what_runs_beside_it() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = [t for job in config["scrape_configs"] for group in job["static_configs"] for t in group["targets"]]
    hosts = {target.partition(":")[0] for target in targets}
    assert {"gateway", "engine"} <= hosts <= services().keys()
    for host in hosts:
        assert services()[host]["networks"].keys() & services()["prometheus"]["networks"].keys(), host
    folder = {volume["target"] for volume in services()["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{Path(pattern).parent}" for pattern in config["rule_files"]} <= folder


def test_keys_that_are_made_are_those_that_the_gateway_reads() -> None:
    folder = str(settings.load(ROOT / "deploy" / "compose" / "config.yaml").auth.keys_directory)
    for name in ("gateway", "keys"):
        assert {"source": "state", "target": folder}.items() <= services()[name]["volumes"][-1].items(), name
    # An empty volume is given to the owner of what the image has at its place.
    assert f"install -d -o 10001 -g 10001 {folder}" in " ".join(step.text for step in STAGES["gateway"].all("RUN"))


def test_the_eight_gpus_are_shared_out_once_each() -> None:
    engines = {n: s for n, s in resolved(COMPOSE, EIGHT)["services"].items() if re.fullmatch(r"engine(-\d)?", n)}
    devices = [d for s in engines.values() for d in s["deploy"]["resources"]["reservations"]["devices"]]
    assert sorted(gpu for device in devices for gpu in device["device_ids"]) == [str(number) for number in range(8)]
    for service in engines.values():
        assert "--tensor-parallel-size=2" in service["command"]
        assert service["networks"]["engines"]["aliases"] == ["engine"]
        assert service["read_only"] is True


@pytest.mark.parametrize("name", ["MODEL", "ADDRESS", "PORT", "GRAFANA_PASSWORD", "HF_TOKEN"])
def test_every_variable_is_explained(name: str) -> None:
    head, _, body = COMPOSE.read_text().partition("\nname: gemma")
    assert name in head
    assert f"${{{name}:-" in body
