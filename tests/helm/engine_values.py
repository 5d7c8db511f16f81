"""Values of the engine chart that the tests render: each the whole of an intent, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MODEL = "google/gemma-4-31B-it"
COMMIT = "439edf5652646a0d1bd8b46bfdc1d3645761a445"

#: A cache that many pods share, filled by the Job.
DOWNLOAD = {
    "cache": {"enabled": True, "accessMode": "ReadWriteMany", "storageClass": "nfs", "download": {"enabled": True}}
}
TWO_NODES = {"parallelism": {"tensor": 8, "pipeline": 2}, "multiNode": {"nodes": 2}}
KEDA = {"keda": {"enabled": True, "serverAddress": "http://prometheus-operated.monitoring:9090"}}
OCI = {"modelArtifacts": {"uri": f"oci://registry.example.org/gemma@sha256:{'a' * 64}", "ociPath": "model"}}

#: With every option on that goes with the others.
EVERYTHING: Mapping[str, Any] = MappingProxyType(
    {
        **DOWNLOAD,
        "modelArtifacts": {"revision": COMMIT, "hfToken": {"existingSecret": "hub"}},
        "modelAliases": ["gemma"],
        "args": {"max-model-len": 65536, "kv-cache-dtype": "fp8", "limit-mm-per-prompt": {"image": 8}},
        "extraArgs": ["--seed=1"],
        "commonLabels": {"team": "search"},
        "image": {"digest": f"sha256:{'b' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "hpa": {"enabled": True},
        "pdb": {"enabled": True},
        "networkPolicy": {"enabled": True, "extraEgress": [{"to": [{"namespaceSelector": {}}]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "serviceAccount": {"annotations": {"example.org/role": "models"}},
        "service": {"annotations": {"example.org/name": "engine"}},
        "extraEnv": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
        "extraEnvFrom": [{"secretRef": {"name": "proxy"}}],
        "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
        "extraVolumeMounts": [{"name": "certificates", "mountPath": "/etc/certificates"}],
        "podAnnotations": {"example.org/note": "engine"},
        "podLabels": {"tier": "gpu"},
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "serving",
        "runtimeClassName": "nvidia",
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {}}
        ],
    }
)

#: What is rendered, linted and checked.
MATRIX: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "defaults": {},
        "everything": EVERYTHING,
        "cpu": {"gpu": {"resource": ""}},
        "directory in the image": {"model": "/models/gemma"},
        "claim": {"modelArtifacts": {"uri": "pvc://models/gemma-4-31B-it"}},
        "store": {
            "modelArtifacts": {
                "uri": "s3://models/gemma-4-31B-it",
                "s3": {"existingSecret": "store", "endpoint": "https://minio:9000", "region": "eu-west-1"},
            },
            "networkPolicy": {"enabled": True},
        },
        "cache of one node": {"cache": {"enabled": True}},
        "cache shared by releases": {"cache": {"enabled": True, "existingClaim": "models"}, "replicas": 3},
        "download": DOWNLOAD,
        "two nodes": {**TWO_NODES, "networkPolicy": {"enabled": True}, "pdb": {"enabled": True}},
        "two nodes with ray": {**TWO_NODES, "multiNode": {"nodes": 2, "backend": "ray"}},
        "two nodes, scaled": {**TWO_NODES, **KEDA},
        "scaled from zero": {"keda": {**KEDA["keda"], "scaleToZero": True}},
        "replaced at once": {"strategy": {"type": "Recreate"}},
    }
)


def values(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values with a model, and what is given besides."""
    return {"model": MODEL, **(extra or {})}
