"""What the engine chart writes is what Kubernetes takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.helm.engine_values import MATRIX, OCI, values
from tests.helm.profiles import FOLDER
from tests.helm.rendering import NEWEST, faults, helm_lint, helm_template, some

PROFILES = sorted(FOLDER.glob("values-*.yaml"))
#: They differ in numbers alone: the largest stands for all, and one of several replicas.
QUICK = {FOLDER / "values-gemma-4-31b-l4.yaml", FOLDER / "values-gemma-3-4b-8xh100.yaml"}


@pytest.mark.parametrize("given", MATRIX.values(), ids=MATRIX.keys())
def test_objects_are_valid_in_the_oldest_and_newest_version(given: Mapping[str, Any], version: str) -> None:
    assert faults(helm_template("engine", values(given)), version) == []


def test_model_in_an_image_is_valid_where_volumes_may_be_images() -> None:
    assert faults(helm_template("engine", values(OCI), kube_version=NEWEST), NEWEST) == []


@pytest.mark.parametrize("profile", some(PROFILES, QUICK), ids=lambda path: path.stem)
def test_profile_renders_valid_objects(profile: Any) -> None:
    assert faults(helm_template("engine", profile), NEWEST) == []


@pytest.mark.parametrize("name", some(["defaults", "everything", "two nodes"], ["everything"]))
def test_chart_passes_lint(name: str) -> None:
    assert "0 chart(s) failed" in helm_lint("engine", values(MATRIX[name]))


def test_fault_in_an_object_is_seen() -> None:
    """The check itself works: for an unknown field of Kubernetes, of a custom resource and of a pod in one."""
    objects = helm_template("engine", values(MATRIX["two nodes, scaled"]))
    for found in objects:
        found["spec" if "spec" in found else "metadata"]["surprise"] = 1
        if found["kind"] == "LeaderWorkerSet":
            found["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["containers"][0]["surprise"] = 1
    seen = {fault.split()[0] for fault in faults(objects, NEWEST) if "surprise" in fault}
    assert seen == {found["kind"] for found in objects} | {"Pod"}
