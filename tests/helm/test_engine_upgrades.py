"""An upgrade of the engine chart changes nothing that Kubernetes does not let change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helm.engine_values import DOWNLOAD, EVERYTHING, TWO_NODES, values
from tests.helm.rendering import CHARTS, Object, helm_template, of_kind, only

BEFORE = {**DOWNLOAD, "cache": {**DOWNLOAD["cache"], "keep": True}}
#: Everything that a running release may be told anew.
AFTER = {**EVERYTHING, "replicas": 3, "drainSeconds": 90, "port": 8080, "parallelism": {"tensor": 2}}


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of the next version."""
    chart = tmp_path_factory.mktemp("charts") / "engine"
    shutil.copytree(CHARTS / "engine", chart)
    description = chart / "Chart.yaml"
    description.write_text(description.read_text().replace("0.1.0", "0.2.0"))
    return chart


@pytest.fixture
def pair(newer: Path) -> tuple[list[Object], list[Object]]:
    """The objects of a release, and those of its upgrade."""
    return helm_template("engine", values(BEFORE)), helm_template(newer, values(AFTER), is_upgrade=True)


def immutable(found: Object) -> dict[str, Any]:
    """What Kubernetes refuses to change in an object of this kind."""
    spec = found.get("spec", {})
    fields: dict[str, tuple[str, ...]] = {
        "Deployment": ("selector",),
        "Service": ("clusterIP",),
        "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName", "selector"),
        "Job": ("template", "selector", "completions"),
        "LeaderWorkerSet": (),
    }
    return {field: spec.get(field) for field in fields.get(found["kind"], ())}


def both(pair: tuple[list[Object], list[Object]]) -> Iterator[tuple[Object, Object]]:
    """The objects that are there before and after."""
    after = {(found["kind"], found["metadata"]["name"]): found for found in pair[1]}
    for found in pair[0]:
        if (key := (found["kind"], found["metadata"]["name"])) in after:
            yield found, after[key]


def test_immutable_fields_stay(pair: tuple[list[Object], list[Object]]) -> None:
    kept = list(both(pair))
    assert {"Deployment", "Service", "PersistentVolumeClaim", "ServiceAccount"} <= {old["kind"] for old, _ in kept}
    for old, new in kept:
        assert immutable(new) == immutable(old)


def test_job_that_changes_is_another_job(pair: tuple[list[Object], list[Object]]) -> None:
    old, new = (only(objects, "Job") for objects in pair)
    assert old["spec"]["template"] != new["spec"]["template"]
    assert old["metadata"]["name"] != new["metadata"]["name"]


def test_job_that_stays_has_the_name_that_it_had() -> None:
    names = {
        only(helm_template("engine", values({**BEFORE, "replicas": count})), "Job")["metadata"]["name"]
        for count in (1, 2)
    }
    assert len(names) == 1


def test_new_version_of_the_chart_alone_changes_only_the_image_of_a_pod(newer: Path) -> None:
    """A pod that is replaced loads its model anew."""
    pinned = values({"image": {"tag": "1.0"}})
    old, new = (only(helm_template(chart, pinned), "Deployment") for chart in ("engine", newer))
    assert old["metadata"]["labels"] != new["metadata"]["labels"]
    assert old["spec"]["template"] == new["spec"]["template"]


def test_claim_outlives_the_release_unless_told_otherwise() -> None:
    kept, not_kept = (
        only(helm_template("engine", values({"cache": {"enabled": True, "keep": keep}})), "PersistentVolumeClaim")
        for keep in (True, False)
    )
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in not_kept["metadata"]


def test_another_model_waits_for_its_own_download() -> None:
    marks = {
        only(helm_template("engine", values({**DOWNLOAD, **more})), "Job")["spec"]["template"]["spec"]["containers"][0][
            "args"
        ][-1]
        for more in ({}, {"model": "google/gemma-4-12B-it"}, {"modelArtifacts": {"revision": "abc"}})
    }
    assert len(marks) == 3


def test_change_of_the_number_of_nodes_takes_the_other_workload_away() -> None:
    kinds = [
        {found["kind"] for found in helm_template("engine", values(given)) if "replicas" in found.get("spec", {})}
        for given in ({}, TWO_NODES)
    ]
    assert kinds == [{"Deployment"}, {"LeaderWorkerSet"}]
    assert of_kind(helm_template("engine", values(TWO_NODES)), "Deployment") == []
