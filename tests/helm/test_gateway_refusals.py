"""What the gateway chart refuses, with the text that says the fix."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.rendering import refusal

LEAST: dict[str, Any] = {
    "engines": {"default": {"dns": {"name": "gemma-4b-engine"}}},
    "models": {"gemma": {"served_name": "g"}},
}


def config(**sections: Any) -> dict[str, Any]:
    return {"config": LEAST | sections}


BY_KUBERNETES = config(engines={"default": {"kubernetes": {"service": "engine"}}})
NETWORK = {"networkPolicy": {"enabled": True}}

#: Values that the schema does not take, many at once: Helm names the places of all.
MISTAKES: dict[str, Any] = {
    "replica": 3,
    "replicas": "three",
    "reload": "cold",
    "service": {"port": 70000},
    "resources": {"limits": None},
    "commonLabels": {"app.kubernetes.io/name": "x"},
    "fullnameOverride": "Gateway",
    "keys": {"source": "existing", "existing": ["gemma-keys"]},
    "prometheusRule": {
        "runbookPrefix": "https://git.example.com/docs",
        "grafanaUrl": "grafana.example.com",
        "objectives": {"availability": 99.9, "firstToken": 0},
    },
    "config": {
        "engine": {},
        "engines": {"default": {"dns": {}}},
        "models": {"gemma": {"famly": "gemma3"}, "other": {"family": "gemma5"}},
        "server": {"max_body_bytes": "64MB"},
    },
}

ANSWERS = [
    "Additional property replica is not allowed",
    "replicas: Invalid type",
    'reload must be one of the following: "hot", "restart"',
    "service.port: Must be less than or equal to 65535",
    "resources: limits is required",
    "commonLabels",
    "fullnameOverride: Does not match pattern",
    "keys.existing.0: Invalid type",
    "prometheusRule.runbookPrefix: Does not match pattern",
    "prometheusRule.grafanaUrl: Does not match pattern",
    "prometheusRule.objectives.availability: Must be less than 1",
    "prometheusRule.objectives.firstToken: Must be greater than 0",
    "config: Additional property engine is not allowed",
    "config.models.gemma: Additional property famly is not allowed",
    "config.models.other.family must be one of the following",
    "config.server.max_body_bytes: Invalid type. Expected: integer",
    "name is required",
]

CHECKS: list[tuple[dict[str, Any], str]] = [
    ({"config": {}}, "config.engines is empty: name an engine, such as config.engines.default.dns.name="),
    (config(models={}), "config.models is empty: name a model, such as config.models.gemma="),
    (
        config(models={"gemma": {"engine": "big", "served_name": "g"}}),
        'config.models.gemma is a model of the engine "big", which is not among config.engines (default): add it there',
    ),
    (config(server={"host": "127.0.0.1"}), "config.server.host is the chart's to set: remove it"),
    (config(server={"port": 80}), "config.server.port is the chart's to set: remove it; the pod has port 8000"),
    (config(server={"admin_host": "::"}), "config.server.admin_host is the chart's to set: remove it"),
    (config(server={"admin_port": 80}), "config.server.admin_port is the chart's to set: remove it"),
    (
        config(server={"drain_seconds": 5}),
        "config.server.drain_seconds is the chart's to set: remove it and set drain",
    ),
    (config(server={"drain_delay_seconds": 5}), "config.server.drain_delay_seconds is the chart's to set"),
    (config(auth={"keys_file": "/keys.yaml"}), "config.auth.keys_file is the chart's to set: remove it and say under"),
    (config(auth={"keys_directory": "/keys"}), "config.auth.keys_directory is the chart's to set"),
    (
        config(quotas={"store": {"url": "redis://v", "password_file": "/p"}}),
        "config.quotas.store.password_file is the chart's to set: remove it and set valkey.passwordSecret",
    ),
    (
        config() | {"extraEnv": [{"name": "GEMMA_GATEWAY_SERVER__PORT", "value": "1"}]},
        "extraEnv has GEMMA_GATEWAY_SERVER__PORT, which would win over what the chart sets: remove it",
    ),
    (config() | {"extraArgs": ["--port=1"]}, "extraArgs has --port=1, which would win over what the chart sets"),
    (
        config() | {"keys": {"existing": [{"secret": "k"}]}},
        "keys.existing is set, and keys.source=generated leaves it out: set keys.source=existing",
    ),
    (config() | {"keys": {"source": "existing"}}, "keys.source=existing needs a Secret with a key file: make one by"),
    (config() | {"keys": {"source": "records"}}, "keys.source=records needs entries under keys.records"),
    (config() | {"keys": {"source": "external"}}, "keys.source=external needs keys.external.secretStoreRef, such as"),
    (
        config() | {"keys": {"source": "none"}},
        "keys.source=none without config.auth.jwt would let everyone in, and the gateway does not start so: "
        "set keys.source=generated",
    ),
    (
        config() | {"drainSeconds": 5, "drainDelaySeconds": 5},
        "drainDelaySeconds=5 is a part of drainSeconds=5 and leaves nothing for requests to finish: "
        "raise drainSeconds to 65, say",
    ),
    (
        config() | {"hpa": {"enabled": True}, "keda": {"enabled": True, "prometheus": "http://p"}},
        "hpa.enabled and keda.enabled both decide how many gateways there are: turn one off",
    ),
    (config() | {"keda": {"enabled": True}}, "keda.enabled needs something to scale by: set keda.prometheus="),
    (
        config() | {"hpa": {"enabled": True, "cpuPercent": 0}},
        "hpa.enabled needs something to scale by: set hpa.cpuPercent=70",
    ),
    (
        config() | {"hpa": {"enabled": True, "minReplicas": 20}},
        "hpa.minReplicas=20 is above hpa.maxReplicas=10: lower the one or raise the other",
    ),
    (
        config() | {"pdb": {"enabled": True, "minAvailable": 1}},
        'pdb.minAvailable and pdb.maxUnavailable exclude each other: set pdb.maxUnavailable=""',
    ),
    (
        config() | {"pdb": {"enabled": True, "maxUnavailable": ""}},
        "pdb.enabled needs pdb.maxUnavailable or pdb.minAvailable",
    ),
    (
        config() | {"pdb": {"enabled": True, "maxUnavailable": "", "minAvailable": 2}},
        "the PodDisruptionBudget would let none of 2 gateways go, so that no node could ever be drained: set "
        "pdb.maxUnavailable=1",
    ),
    (
        config() | {"pdb": {"enabled": True, "maxUnavailable": 0}},
        "the PodDisruptionBudget would let none of 2 gateways go",
    ),
    (config() | {"ingress": {"enabled": True}}, "ingress.enabled needs a host name: set ingress.hosts="),
    (
        config() | {"ingress": {"enabled": True, "hosts": ["a"], "tls": [{"secretName": "s", "hosts": ["b"]}]}},
        "ingress.tls has a certificate for b, which is not among ingress.hosts: add it there",
    ),
    (
        config() | {"httpRoute": {"enabled": True}},
        "httpRoute.enabled needs a Gateway to join: set httpRoute.parentRefs=",
    ),
    (
        config() | {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "service.loadBalancerSourceRanges has no effect with service.type=ClusterIP: set service.type=LoadBalancer",
    ),
    (
        config(quotas={"store": {"url": "redis://v"}}) | {"valkey": {"enabled": True}},
        "valkey.enabled starts a Valkey, and config.quotas.store.url=redis://v names another: remove one of the two",
    ),
    (
        config() | {"valkey": {"passwordSecret": {"name": "v"}}},
        "valkey.passwordSecret is set, and there is no Valkey: set valkey.enabled=true, or config.quotas.store.url=",
    ),
    (
        config(quotas={"store": {"url": "redis://v"}}) | NETWORK,
        "networkPolicy.enabled would cut the gateway off from redis://v: say where that is, such as networkPolicy.st",
    ),
    (
        config(tracing={"endpoint": "http://collector:4318"}) | NETWORK,
        "networkPolicy.enabled would cut the gateway off from config.tracing.endpoint=http://collector:4318: say where "
        "that is, such as networkPolicy.extraEgress=[{to: [{namespaceSelector: {}}], ports: [{port: 4318}]}]",
    ),
    (
        config(media={"proxy": "http://proxy:3128"}) | NETWORK,
        "networkPolicy.enabled would cut the gateway off from config.media.proxy=http://proxy:3128",
    ),
    (BY_KUBERNETES, "which the gateway may not watch (in gemma): set rbac.create=true, or use `dns`"),
    (config() | {"rbac": {"create": True}}, "rbac.create gives the pods a token, which no engine under config.engines"),
    (
        BY_KUBERNETES | NETWORK | {"rbac": {"create": True}},
        "networkPolicy.enabled would cut the gateway off from the Kubernetes API",
    ),
    (
        config(usage={"file": "/var/log/usage.jsonl"}),
        "config.usage.file=/var/log/usage.jsonl is in no volume: add one to extraVolumes, and its mountPath, such as "
        "/var/log, to extraVolumeMounts",
    ),
    (config(media={"folder": "/media"}), "config.media.folder=/media is in no volume"),
    (
        config() | {"image": {"tag": "latest"}},
        "image.tag=latest is another image every day: name a version, or set image.digest",
    ),
    (
        config() | {"valkey": {"enabled": True, "image": {"tag": "latest"}}},
        "valkey.image.tag=latest is another image every day",
    ),
    (
        config() | {"reload": "restart", "configMap": {"create": False}},
        "reload=restart restarts pods when the chart's own ConfigMap changes, and configMap.create is off: set "
        "reload=hot",
    ),
]


@pytest.mark.parametrize("text", ANSWERS)
def test_a_mistake_is_refused_with_its_place(text: str) -> None:
    assert text in refusal("gateway", MISTAKES)


@pytest.mark.parametrize(("values", "text"), CHECKS, ids=[text[:60] for _, text in CHECKS])
def test_a_contradiction_is_refused_with_its_fix(values: dict[str, Any], text: str) -> None:
    assert text in refusal("gateway", values)


def test_a_file_in_a_volume_is_not_refused() -> None:
    mounted = {
        "extraVolumes": [{"name": "usage", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "usage", "mountPath": "/var/log/gateway/"}],
    }
    assert refusal("gateway", config(usage={"file": "/var/log/gateway/usage.jsonl"}) | mounted) == ""
