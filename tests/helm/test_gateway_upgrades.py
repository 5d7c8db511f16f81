"""An upgrade of the gateway chart changes no field that Kubernetes would not let it change."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helm.rendering import CHARTS, Object, helm_template

LEAST: dict[str, Any] = {
    "config": {"engines": {"default": {"dns": {"name": "e"}}}, "models": {"gemma": {"served_name": "g"}}},
    "valkey": {"enabled": True},
}
LATER: dict[str, Any] = {
    "commonLabels": {"team": "search"},
    "podLabels": {"tier": "edge"},
    "replicas": 5,
    "drainSeconds": 300,
    "image": {"tag": "9.9.9"},
    "valkey": {"enabled": True, "image": {"tag": "8.1.5"}, "maxMemory": "128mb"},
    "service": {"annotations": {"a": "b"}},
    "networkPolicy": {"enabled": True},
}

#: The fields of a StatefulSet that may change.
FREE = {"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}


def fixed(objects: list[Object]) -> dict[tuple[str, str], object]:
    """What cannot change of each object, by kind and name."""
    found: dict[tuple[str, str], object] = {}
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Deployment":
            found["Deployment", each["metadata"]["name"]] = spec["selector"]
        elif each["kind"] == "StatefulSet":
            found["StatefulSet", each["metadata"]["name"]] = {key: spec[key] for key in spec.keys() - FREE}
        elif each["kind"] == "Service":
            found["Service", each["metadata"]["name"]] = spec.get("clusterIP")
    return found


def selectors(objects: list[Object]) -> list[object]:
    return [each["spec"]["selector"] for each in objects if each["kind"] in ("Service", "PodDisruptionBudget")]


def test_other_values_keep_what_cannot_change() -> None:
    before, after = helm_template("gateway", LEAST), helm_template("gateway", LEAST | LATER, is_upgrade=True)
    assert fixed(before).keys() == {
        ("Deployment", "gemma-gateway"),
        ("Service", "gemma-gateway"),
        ("StatefulSet", "gemma-gateway-valkey"),
        ("Service", "gemma-gateway-valkey"),
    }
    assert fixed(after) == fixed(before)
    assert selectors(after) == selectors(before)


@pytest.fixture
def next_version(tmp_path: Path) -> Path:
    """The chart, as its next release."""
    chart = tmp_path / "gateway"
    shutil.copytree(CHARTS / "gateway", chart)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r'\1: "7.7.7"', about))
    return chart


def test_a_new_version_keeps_what_cannot_change(next_version: Path) -> None:
    after = helm_template(next_version, LEAST, is_upgrade=True)
    assert fixed(after) == fixed(helm_template("gateway", LEAST))
    assert all("7.7.7" in each["metadata"]["labels"]["helm.sh/chart"] for each in after)
