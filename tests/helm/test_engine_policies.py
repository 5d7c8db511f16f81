"""The engine chart's pods are as a careful cluster wants them: restricted, pinned, bounded, without a token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.helm.engine_values import EVERYTHING, MATRIX, MODEL, OCI, values
from tests.helm.rendering import NEWEST, Object, containers, helm_template, of_kind, only, pod_specs

#: Of the Pod Security Standard "restricted".
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
#: 53 characters, the most that Helm allows.
LONG = "r" + "elease" * 8 + "long"


@pytest.fixture(params=list(MATRIX.values()), ids=list(MATRIX))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return helm_template("engine", values(request.param))


def every_container(objects: list[Object]) -> Iterator[Object]:
    for spec in pod_specs(objects):
        yield from containers(spec)


def test_pods_pass_the_restricted_standard(objects: list[Object]) -> None:
    assert len(pod_specs(objects)) >= 2
    for spec in pod_specs(objects):
        identity = spec["securityContext"]
        assert identity["runAsNonRoot"]
        assert identity["runAsUser"] > 0
        assert identity["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"} <= VOLUMES
    for container in every_container(objects):
        allowed = container["securityContext"]
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}


def test_root_file_system_is_read_only(objects: list[Object]) -> None:
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in every_container(objects))


def test_no_pod_gets_a_token(objects: list[Object]) -> None:
    assert all(spec["automountServiceAccountToken"] is False for spec in pod_specs(objects))
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(objects, "ServiceAccount"))


def test_images_are_pinned(objects: list[Object]) -> None:
    for container in every_container(objects):
        assert re.fullmatch(r"[\w./-]+(:\d[\w.+-]*|@sha256:[0-9a-f]{64})", container["image"])


def test_containers_are_bounded(objects: list[Object]) -> None:
    for container in every_container(objects):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_volumes_in_memory_and_on_the_node_are_bounded(objects: list[Object]) -> None:
    volumes = [volume for spec in pod_specs(objects) for volume in spec.get("volumes", [])]
    assert all(volume["emptyDir"].get("sizeLimit") for volume in volumes if "emptyDir" in volume)


def test_engines_that_answer_are_probed(objects: list[Object]) -> None:
    probed = [container for container in every_container(objects) if container.get("ports")]
    assert len(probed) == 1
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert probed[0][probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_secrets_are_only_named(objects: list[Object]) -> None:
    assert of_kind(objects, "Secret") == []


def test_names_and_labels_fit_63_characters() -> None:
    for intent in ("everything", "two nodes, scaled"):
        for found in helm_template("engine", values(MATRIX[intent]), release=LONG):
            # The name of a LeaderWorkerSet becomes a label with a number of two digits and a checksum of ten.
            room = 63 - len("-10-0123456789") if found["kind"] == "LeaderWorkerSet" else 63
            assert len(found["metadata"]["name"]) <= room
            assert all(len(value) <= 63 for value in found["metadata"].get("labels", {}).values())


def test_model_in_an_image_is_mounted_read_only() -> None:
    spec = pod_specs(helm_template("engine", values(OCI), kube_version=NEWEST))[0]
    (volume,) = (volume for volume in spec["volumes"] if "image" in volume)
    (mount,) = (mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == volume["name"])
    assert volume["image"]["reference"] == f"registry.example.org/gemma@sha256:{'a' * 64}"
    assert mount["readOnly"]


def test_escape_hatches_reach_the_pod() -> None:
    objects = helm_template("engine", values(EVERYTHING))
    template = only(objects, "Deployment")["spec"]["template"]
    spec, (engine, *_) = template["spec"], template["spec"]["containers"]
    assert template["metadata"]["labels"]["tier"] == "gpu"
    assert template["metadata"]["annotations"]["example.org/note"] == "engine"
    assert engine["args"][-1] == "--seed=1"
    assert EVERYTHING["extraEnv"][0] in engine["env"]
    assert engine["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert EVERYTHING["extraVolumeMounts"][0] in engine["volumeMounts"]
    assert EVERYTHING["extraVolumes"][0] in spec["volumes"]
    for key in ("nodeSelector", "affinity", "topologySpreadConstraints", "priorityClassName", "runtimeClassName"):
        assert spec[key] == EVERYTHING[key]
    assert only(objects, "ConfigMap")["metadata"]["name"] == "gemma-more"
    assert all(found["metadata"]["labels"]["team"] == "search" for found in objects if found["kind"] != "ConfigMap")


def test_containers_beside_and_before_the_engine_are_added() -> None:
    more = {"name": "more", "image": "busybox:1.37"}
    spec = pod_specs(helm_template("engine", values({"extraContainers": [more], "extraInitContainers": [more]})))[0]
    assert spec["containers"][1:] == [more]
    assert spec["initContainers"] == [more]


def test_gpus_are_asked_for_and_limited_alike() -> None:
    given: Mapping[str, Any] = {"model": MODEL, "parallelism": {"tensor": 4}, "gpu": {"resource": "amd.com/gpu"}}
    resources = pod_specs(helm_template("engine", given))[0]["containers"][0]["resources"]
    assert resources["requests"]["amd.com/gpu"] == resources["limits"]["amd.com/gpu"] == 4


def test_shared_memory_grows_with_the_gpus() -> None:
    for size, expected in ((1, "3Gi"), (8, "10Gi")):
        spec = pod_specs(helm_template("engine", values({"parallelism": {"tensor": size}})))[0]
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": expected}} in spec["volumes"]
