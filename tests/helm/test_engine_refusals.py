"""Values of the engine chart that contradict each other, or are none, are refused with the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.engine.gemmas import SHAPES
from gateway.engine.presets import recognise
from tests.helm.engine_values import COMMIT, DOWNLOAD, KEDA, OCI, values
from tests.helm.rendering import CHARTS, refusal

#: Values, and what is said to them.
CONTRADICTIONS: list[tuple[Mapping[str, Any], str]] = [
    ({"model": ""}, "model is empty: name the Gemma to serve, such as  --set model=google/gemma-3-4b-it"),
    ({"model": "./gemma"}, "which is no absolute path: name the directory as the container sees it"),
    (
        {"modelArtifacts": {"uri": "pvc://models/gemma", "revision": COMMIT}},
        "modelArtifacts.revision is for models from the hub, and this one is pvc://: leave it out",
    ),
    (
        {"modelArtifacts": {"uri": "pvc://models", "ociPath": "gemma"}},
        "modelArtifacts.ociPath is for oci:// alone: put the directory into modelArtifacts.uri",
    ),
    (
        {"modelArtifacts": {"uri": "s3://models/latest"}},
        "does not say which Gemma it is, and the preset goes by that: name the directory after the model",
    ),
    (
        {"modelArtifacts": {"uri": "hf://me/assistant"}},
        "me/assistant does not say which Gemma it is, and the preset goes by that until the model is in "
        "the cache: have it downloaded first,  --set cache.enabled=true,cache.accessMode=ReadWriteMany,cache.download",
    ),
    ({"args": {"tensor-parallel-size": 2}}, "args.tensor-parallel-size is set by this chart: use parallelism.tensor"),
    ({"args": {"served_model_name": "x"}}, "args.served_model_name is set by this chart: use model and modelAliases"),
    ({"args": {"shutdown-timeout": 5}}, "args.shutdown-timeout is set by this chart: use drainSeconds instead"),
    ({"args": {"nnodes": 2}}, "args.nnodes is set by this chart: use multiNode.nodes instead"),
    (
        {"parallelism": {"tensor": 4}, "multiNode": {"nodes": 3}},
        "the 4 GPUs of a replica (parallelism.tensor x pipeline x data) cannot be divided among multiNode.nodes=3 pods",
    ),
    (
        {"parallelism": {"data": 2}, "multiNode": {"nodes": 2}},
        "parallelism.data=2 does not go with multiNode.nodes=2: copies of the model over several nodes are replicas, "
        "so  --set parallelism.data=1 --set replicas=2",
    ),
    (
        {"cache": {"enabled": True}, "replicas": 2},
        "cache.accessMode is ReadWriteOnce, and there may be 2 pods: use a storage class for many nodes and  "
        "--set cache.accessMode=ReadWriteMany",
    ),
    ({"cache": {"enabled": True}, "hpa": {"enabled": True, "maxReplicas": 7}}, "and there may be 7 pods"),
    (
        {"cache": {"enabled": True}, "parallelism": {"tensor": 2}, "multiNode": {"nodes": 2}},
        "and there may be 2 pods",
    ),
    (
        {"cache": {"existingClaim": "models"}},
        "cache.existingClaim is named but not used: add  --set cache.enabled=true",
    ),
    (
        {"cache": {"download": {"enabled": True}}},
        "cache.download.enabled needs a volume to download to: add  --set cache.enabled=true",
    ),
    (
        {**DOWNLOAD, "modelArtifacts": {"uri": "pvc://models/gemma"}},
        "cache.download.enabled is for models from the hub, and this one is not (pvc)",
    ),
    (
        {"cache": {"enabled": True, "download": {"enabled": True}}},
        "Job and engine could wait for each other. Use  --set cache.accessMode=ReadWriteMany",
    ),
    (
        {**DOWNLOAD, "draft": True},
        "pods fetch nothing: add  --set 'cache.download.also={google/gemma-4-31B-it-assistant}'",
    ),
    (
        {**KEDA, "hpa": {"enabled": True}},
        "hpa and keda both set the number of replicas: disable one, such as  --set hpa.enabled=false",
    ),
    (
        {"hpa": {"enabled": True, "minReplicas": 9}},
        "hpa.minReplicas=9 is above maxReplicas: add  --set hpa.maxReplicas=9",
    ),
    (
        {"keda": {**KEDA["keda"], "minReplicas": 9}},
        "keda.minReplicas=9 is above maxReplicas: add  --set keda.maxReplicas=9",
    ),
    ({"keda": {"enabled": True}}, "keda.serverAddress is empty: say where Prometheus is, such as  --set keda.server"),
    (
        {"pdb": {"enabled": True, "minAvailable": 1}},
        "pdb takes minAvailable or maxUnavailable, not both: add  --set pdb.maxUnavailable=",
    ),
    ({"pdb": {"enabled": True, "maxUnavailable": ""}}, "pdb.enabled needs a number: add  --set pdb.maxUnavailable=1"),
    ({"image": {"tag": "latest"}}, "image.tag is latest, which is another image tomorrow: name a version"),
    (
        {"serviceAccount": {"create": False, "annotations": {"a": "b"}}},
        "serviceAccount.annotations are for an account that the chart makes: add  --set serviceAccount.create=true",
    ),
    (
        {"probes": {"startup": {"seconds": 1}}},
        "probes.startup.seconds is below one period: loading takes minutes, so  --set probes.startup.seconds=3600",
    ),
]

#: Values that the schema does not take, many at once: Helm names the places of all.
MISTAKES: dict[str, Any] = {
    "modle": "x",
    "model": 3,
    "modelArtifacts": {
        "url": "x",
        "uri": "http://models/gemma",
        "hfToken": {"value": "hf_x"},
        "s3": {"endpoint": "minio:9000"},
    },
    "args": {"--max-model-len": 1},
    "port": 0,
    "parallelism": {"tensor": 3, "pipeline": 0},
    "multiNode": {"backend": "mpi"},
    "replicas": -1,
    "strategy": {"type": "OnDelete"},
    "image": {"digest": "sha256:abc", "pullPolicy": "Sometimes"},
    "resources": {"limit": {}, "limits": {"memory": "lots"}},
    "cache": {"accessMode": "ReadWriteOncePod", "existingClaim": "My Claim"},
    "drainSeconds": -1,
    "probes": {"readiness": {"seconds": 1}},
    "keda": {"kvCacheUsage": 80, "minReplicas": 0, "serverAddress": "prometheus:9090"},
    "serviceMonitor": {"interval": 15},
    "podLabels": {"app.kubernetes.io/name": "x"},
    "extraEnv": {"A": "b"},
}
ANSWERS = [
    "(root): Additional property modle is not allowed",
    "model: Invalid type. Expected: string, given: integer",
    "modelArtifacts: Additional property url is not allowed",
    "modelArtifacts.uri: Does not match pattern",
    "modelArtifacts.hfToken: Additional property value is not allowed",
    "modelArtifacts.s3.endpoint: Does not match pattern",
    'args: Property name of "--max-model-len" does not match',
    "port: Must be greater than or equal to 1",
    "parallelism.tensor: parallelism.tensor must be one of the following: 1, 2, 4, 8",
    "parallelism.pipeline: Must be greater than or equal to 1",
    'multiNode.backend: multiNode.backend must be one of the following: "mp", "ray"',
    "replicas: Must be greater than or equal to 0",
    "strategy.type: strategy.type must be one of the following",
    "image.digest: Does not match pattern",
    "image.pullPolicy: image.pullPolicy must be one of the following",
    "resources: Additional property limit is not allowed",
    "resources.limits.memory: Must validate at least one schema",
    'cache.accessMode: cache.accessMode must be one of the following: "ReadWriteOnce", "ReadWriteMany"',
    "cache.existingClaim: Does not match pattern",
    "drainSeconds: Must be greater than or equal to 0",
    "probes.readiness: Additional property seconds is not allowed",
    "keda.kvCacheUsage: Must be less than or equal to 1",
    "keda.minReplicas: Must be greater than or equal to 1",
    "keda.serverAddress: Does not match pattern",
    "serviceMonitor.interval: Invalid type. Expected: string",
    'podLabels: Property name of "app.kubernetes.io/name" does not match',
    "extraEnv: Invalid type. Expected: array, given: object",
]


@pytest.mark.parametrize(("given", "text"), CONTRADICTIONS, ids=[text[:40] for _, text in CONTRADICTIONS])
def test_contradiction_is_refused_with_the_fix(given: Mapping[str, Any], text: str) -> None:
    assert text in refusal("engine", values(given))


@pytest.mark.parametrize("text", ANSWERS)
def test_mistake_is_refused_with_its_place(text: str) -> None:
    assert text in refusal("engine", MISTAKES)


@pytest.mark.parametrize("model", ["--port", "two words"])
def test_model_that_is_no_name_is_refused(model: str) -> None:
    assert "model: Does not match pattern" in refusal("engine", {"model": model})


def test_model_in_an_image_is_refused_where_volumes_cannot_be_images() -> None:
    said = refusal("engine", values(OCI), kube_version="1.32.0")
    assert "oci:// needs Kubernetes 1.33 with the ImageVolume feature, and this is v1.32.0: use pvc:// or hf://" in said


def test_old_kubernetes_is_refused() -> None:
    assert "requires kubeVersion: >=1.30.0-0" in refusal("engine", values(), kube_version="1.29.0")


def test_every_check_has_a_test_of_its_text() -> None:
    checks = (CHARTS / "engine" / "templates" / "checks.yaml").read_text()
    messages = re.findall(r'fail \(?(?:printf )?"([^"]*)"', checks)
    assert len(messages) == checks.count("{{- fail ")
    said = [refusal("engine", values(given)) for given, _ in CONTRADICTIONS]
    said.append(refusal("engine", values(OCI), kube_version="1.32.0"))
    patterns = [re.sub("%[sd]", ".*", re.escape(message)) for message in messages]
    assert [pattern for pattern in patterns if not any(re.search(pattern, text) for text in said)] == []


@pytest.mark.parametrize("model", ["google/gemma-3n-E2B-it", "me/my-gemma-4-26B-A4B-FP8", "x/gemma-3-270m"])
def test_model_is_recognised_by_its_name_as_by_the_engine(model: str) -> None:
    assert recognise(model).name in SHAPES
    assert refusal("engine", {"model": model}) == ""


def test_model_of_any_name_is_taken_from_a_cache() -> None:
    assert refusal("engine", {"model": "me/assistant", **DOWNLOAD}) == ""
