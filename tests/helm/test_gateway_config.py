"""The configuration that the gateway chart writes is what was given, completed, and good for the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.settings import Settings
from tests.helm import gateway_schema
from tests.helm.rendering import CHARTS, Object, helm_template, of_kind, only

EXAMPLES = sorted((CHARTS / "gateway" / "examples").glob("*.yaml"))
ENGINES = {"default": {"dns": {"name": "gemma-4b-engine"}}}
LEAST = {"engines": ENGINES, "models": {"gemma": {"served_name": "g"}}}


def document(objects: list[Object]) -> str:
    (found,) = [found for found in of_kind(objects, "ConfigMap") if "config.yaml" in found.get("data", {})]
    return str(found["data"]["config.yaml"])


def loaded(objects: list[Object], folder: Path) -> Settings:
    path = folder / "config.yaml"
    path.write_text(document(objects))
    return settings.load(path)


def test_the_schema_of_config_is_that_of_the_settings() -> None:
    committed = gateway_schema.PATH.read_text()
    assert gateway_schema.text(gateway_schema.renewed(json.loads(committed))) == committed, (
        "write it anew: python -m tests.helm.gateway_schema"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_every_example_renders_is_good_for_the_gateway(example: Path, tmp_path: Path) -> None:
    found = loaded(helm_template("gateway", example), tmp_path)
    assert found.server.host == found.server.admin_host == "0.0.0.0"  # noqa: S104 - compared, not bound
    assert found.engines
    assert found.models


def test_what_is_given_is_passed_on_as_it_is(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "engines": {"default": {"url": "http://10.0.0.7:8000", "hold": {"seconds": 0.5}}},
        "models": {
            "google/gemma-3-4b-it": {
                "family": "gemma3",
                "max_model_len": 131072,
                "defaults": {"temperature": 0.1, "chat_template": "{{ messages }}", "stop": ["<end>", "yes"]},
            },
            "old": {"targets": [{"model": "google/gemma-3-4b-it"}], "deprecated": {"since": "2026-01-01"}},
            "*": {"targets": [{"model": "google/gemma-3-4b-it", "weight": 3}]},
        },
        "server": {"max_body_bytes": 268435456},
        "media": {"allowed_networks": ["10.1.0.0/16"], "max_bytes_in_flight": 1073741824},
        "limits": {"max_body_bytes_in_flight": 4294967296},
        "quotas": {"total": {"tokens_per_day": 123456789012}},
    }
    objects = helm_template("gateway", {"config": given})
    written = yaml.safe_load(document(objects))

    assert {name: written[name] for name in ("engines", "models", "media", "limits", "quotas")} == {
        name: given[name] for name in ("engines", "models", "media", "limits", "quotas")
    }
    assert loaded(objects, tmp_path).server.max_body_bytes == 268435456


def test_the_chart_adds_what_only_it_can_know(tmp_path: Path) -> None:
    found = loaded(helm_template("gateway", {"config": LEAST, "valkey": {"enabled": True}}), tmp_path)
    pod = only(helm_template("gateway", {"config": LEAST, "valkey": {"enabled": True}}), "Deployment")
    mounts = {mount["mountPath"] for mount in pod["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert str(found.auth.keys_directory) in mounts
    assert str(found.quotas.store.password_file).removesuffix("/password") in mounts
    assert found.quotas.store.url == "redis://gemma-gateway-valkey:6379/0"


def test_the_pods_ports_and_probes_are_those_of_the_configuration(tmp_path: Path) -> None:
    objects = helm_template("gateway", {"config": LEAST})
    server = loaded(objects, tmp_path).server
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": server.port, "admin": server.admin_port}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
    assert container["args"] == ["gateway", "--config", "/etc/gemma-gateway/config.yaml"]


def test_the_memory_limit_holds_what_the_settings_allow() -> None:
    allowed = Settings()
    held = allowed.limits.max_body_bytes_in_flight + allowed.media.max_bytes_in_flight + 2 * allowed.media.cache_bytes
    values = yaml.safe_load((CHARTS / "gateway" / "values.yaml").read_text())
    limit = values["resources"]["limits"]["memory"]
    assert limit == "4Gi"
    assert held + 2**30 <= 4 * 2**30


@pytest.mark.parametrize(
    ("reload", "changed", "restarts"),
    [
        ("hot", {"logs": {"level": "debug"}}, False),
        ("hot", {"server": {"access_log": False}}, True),
        ("restart", {"logs": {"level": "debug"}}, True),
    ],
)
def test_only_what_running_gateways_cannot_take_over_restarts_them(
    reload: str, changed: dict[str, Any], restarts: bool
) -> None:
    before, after = (
        only(helm_template("gateway", {"reload": reload, "config": config}), "Deployment")
        for config in (LEAST, LEAST | changed)
    )
    assert (before != after) is restarts


def test_folders_are_mounted_whole_so_that_the_kubelet_updates_them() -> None:
    objects = helm_template("gateway", {"config": LEAST, "valkey": {"enabled": True}})
    mounts = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert not any("subPath" in mount for mount in mounts)
