"""What the gateway chart renders: valid objects, by every values file and option, that keep to our policies."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.rendering import (
    CHARTS,
    Object,
    containers,
    faults,
    helm_lint,
    helm_notes,
    helm_template,
    of_kind,
    only,
    pod_specs,
    some,
)

EXAMPLES = sorted((CHARTS / "gateway" / "examples").glob("*.yaml"))

#: The least that the chart takes.
LEAST: dict[str, Any] = {
    "config": {"engines": {"default": {"dns": {"name": "gemma-4b-engine"}}}, "models": {"gemma": {"served_name": "g"}}}
}

VALKEY = {"valkey": {"enabled": True}}
OPTIONS: dict[str, dict[str, Any]] = {
    "names": {"nameOverride": "front", "commonLabels": {"team": "search"}, "podLabels": {"tier": "edge"}},
    "long names": {"fullnameOverride": "a" * 45} | VALKEY,
    "digest": {"image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "registry"}]},
    "ConfigMap of one's own": {"configMap": {"create": False, "name": "{{ .Release.Name }}-mine"}, "config": {}},
    "IPv6": {"listen": "::", "reload": "restart", "readiness": "process"},
    "load balancer": {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
    "ingress": {"ingress": {"enabled": True, "controller": "alb", "hosts": ["a.example.com"]}},
    "haproxy": {"ingress": {"enabled": True, "controller": "haproxy", "hosts": ["a.example.com"]}},
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "filters": [{"type": "URLRewrite"}]}},
    "hpa": {"hpa": {"enabled": True, "cpuPercent": 50}, "pdb": {"enabled": True, "maxUnavailable": "25%"}},
    "keda": {"keda": {"enabled": True, "triggers": [{"type": "cron", "metadata": {"desiredReplicas": "3"}}]}},
    "budget": {"pdb": {"enabled": True, "maxUnavailable": "", "minAvailable": 1}},
    "policies": {"networkPolicy": {"enabled": True, "deniedNetworks": ["192.0.3.0/24", "2600::/16"]}} | VALKEY,
    "records": {"keys": {"source": "records", "records": [{"id": "a", "name": "a", "sha256": "0" * 64}]}},
    "several Secrets": {"keys": {"source": "existing", "existing": [{"secret": "a"}, {"secret": "b", "key": "c.yml"}]}},
    "monitor": {"serviceMonitor": {"enabled": True, "relabelings": [{"action": "labeldrop", "regex": "pod"}]}},
    "account": {"serviceAccount": {"create": False}},
    "escape hatches": {
        "extraArgs": ["--logs-level=debug"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "media", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "media", "mountPath": "/media"}],
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "cpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ include \"gateway.fullname\" . }}-text'}",
        ],
    },
}


def render(option: dict[str, Any], **options: str | bool) -> list[Object]:
    return helm_template("gateway", LEAST | option, **options)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_renders_objects_that_kubernetes_takes(option: dict[str, Any], version: str) -> None:
    assert faults(render(option), version) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_renders_objects_that_kubernetes_takes(example: Path, version: str) -> None:
    assert faults(helm_template("gateway", example), version) == []


@pytest.mark.parametrize("values", some([None, *EXAMPLES], [None]), ids=lambda path: path.stem if path else "values")
def test_helm_finds_nothing_to_say_about_any_values_file(values: Path | None) -> None:
    assert "0 chart(s) failed" in helm_lint("gateway", values or LEAST)


@pytest.mark.parametrize("values", [LEAST | VALKEY, *EXAMPLES], ids=["valkey", *(path.stem for path in EXAMPLES)])
def test_every_pod_is_restricted(values: Path | dict[str, Any]) -> None:
    for spec in pod_specs(helm_template("gateway", values)):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for container in containers(spec):
            allowed = container["securityContext"]
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["capabilities"] == {"drop": ["ALL"]}


def test_every_container_has_a_pinned_image_and_resources() -> None:
    for spec in pod_specs(render(VALKEY)):
        for container in containers(spec):
            assert not container["image"].endswith((":latest", ":"))
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_every_workload_has_all_three_probes() -> None:
    objects = render(VALKEY)
    for spec in pod_specs([*of_kind(objects, "Deployment"), *of_kind(objects, "StatefulSet")]):
        for container in containers(spec):
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_no_pod_has_a_token_unless_engines_are_found_by_the_api() -> None:
    plain = render(VALKEY)
    assert {spec["automountServiceAccountToken"] for spec in pod_specs(plain)} == {False}
    assert of_kind(plain, "Role") == []

    watching = helm_template("gateway", CHARTS / "gateway" / "examples" / "external-keys-and-endpointslices.yaml")
    assert only(watching, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert only(watching, "Role")["metadata"]["namespace"] == "models"
    assert only(watching, "Role")["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    assert only(watching, "RoleBinding")["subjects"][0]["name"] == "gemma-gateway"


def test_variables_of_services_are_kept_from_being_read_as_settings() -> None:
    # A Service called gemma-gateway would make GEMMA_GATEWAY_PORT=tcp://…
    assert {spec["enableServiceLinks"] for spec in pod_specs(render(VALKEY))} == {False}


def test_names_fit_however_long_the_releases_is() -> None:
    everything = {"serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}} | VALKEY
    for found in render(everything, release="r" * 53):
        assert len(found["metadata"]["name"]) <= 63
    # Its pods have a label of its name, a dash and ten more characters.
    assert len(only(render(everything, release="r" * 53), "StatefulSet")["metadata"]["name"]) <= 52


def test_the_service_has_the_api_alone_and_prometheus_another() -> None:
    services = {found["metadata"]["name"]: found for found in of_kind(render(OPTIONS["monitor"]), "Service")}
    assert [port["targetPort"] for port in services["gemma-gateway"]["spec"]["ports"]] == ["http"]
    assert [port["targetPort"] for port in services["gemma-gateway-metrics"]["spec"]["ports"]] == ["admin"]
    selected = only(render(OPTIONS["monitor"]), "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= services["gemma-gateway-metrics"]["metadata"]["labels"].items()
    assert not selected.items() <= services["gemma-gateway"]["metadata"]["labels"].items()


def test_services_select_the_pods_of_their_own_kind() -> None:
    objects = [found for found in render(VALKEY | OPTIONS["monitor"]) if found["kind"] != "Pod"]
    workloads = {
        found["metadata"]["name"]: found for found in objects if found["kind"] in ("Deployment", "StatefulSet")
    }
    selected = {
        service["metadata"]["name"]: [
            name
            for name, workload in workloads.items()
            if service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        for service in of_kind(objects, "Service")
    }
    assert selected == {
        "gemma-gateway": ["gemma-gateway"],
        "gemma-gateway-metrics": ["gemma-gateway"],
        "gemma-gateway-valkey": ["gemma-gateway-valkey"],
    }


def test_one_value_decides_how_long_a_pod_takes_to_end() -> None:
    objects = render({"drainSeconds": 90.5, "drainDelaySeconds": 8})
    server = yaml.safe_load(only(objects, "ConfigMap")["data"]["config.yaml"])["server"]
    spec = only(objects, "Deployment")["spec"]["template"]["spec"]
    assert (server["drain_seconds"], server["drain_delay_seconds"]) == (90.5, 8)
    assert spec["terminationGracePeriodSeconds"] == 101
    assert "lifecycle" not in spec["containers"][0]


def test_streams_are_neither_buffered_nor_cut_by_an_ingress_controller() -> None:
    found = only(helm_template("gateway", CHARTS / "gateway" / "examples" / "production.yaml"), "Ingress")
    annotations = found["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "3600"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "67108864"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"


def test_an_ingress_takes_bodies_as_large_as_the_gateway_does() -> None:
    config = LEAST["config"] | {"server": {"max_body_bytes": 1073741824}}
    nginx = {"ingress": {"enabled": True, "controller": "nginx", "hosts": ["a"]}, "config": config}
    annotations = only(render(nginx), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "1073741824"


def test_a_route_has_no_time_limit() -> None:
    found = only(render(OPTIONS["route"]), "HTTPRoute")
    assert found["spec"]["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_nothing_else_decides_on_replicas_where_a_scaler_does() -> None:
    assert only(render({}), "Deployment")["spec"]["replicas"] == 2
    assert "replicas" not in only(render(OPTIONS["hpa"]), "Deployment")["spec"]
    assert "replicas" not in only(render(OPTIONS["keda"]), "Deployment")["spec"]


def test_alerts_and_dashboards_are_taken_from_the_charts_folders(tmp_path: Path, version: str) -> None:
    chart = tmp_path / "gateway"
    shutil.copytree(CHARTS / "gateway", chart, ignore=shutil.ignore_patterns("rules", "dashboards"))
    expression = "rate({{ not helm }}) > 1 and on() vector(1) # {{ $labels.engine }}"
    rules = {"groups": [{"name": "a", "rules": [{"alert": "Down", "expr": expression, "for": "5m"}]}]}
    (chart / "rules").mkdir()
    (chart / "rules" / "down.yaml").write_text(yaml.safe_dump(rules))
    (chart / "dashboards").mkdir()
    (chart / "dashboards" / "overview.json").write_text('{\n  "title": "{{ name }}"\n}\n')
    wanted = {"prometheusRule": {"enabled": True, "labels": {"release": "p"}}, "dashboards": {"enabled": True}}

    objects = helm_template(chart, LEAST | wanted)

    assert faults(objects, version) == []
    assert only(objects, "PrometheusRule")["spec"] == rules
    board = next(found for found in of_kind(objects, "ConfigMap") if "grafana_dashboard" in found["metadata"]["labels"])
    assert board["data"] == {"overview.json": '{\n  "title": "{{ name }}"\n}\n'}


def test_notes_tell_what_is_there_and_how_to_get_the_key() -> None:
    notes = helm_notes("gateway", LEAST)
    assert "http://gemma-gateway.gemma.svc:8000/v1" in notes
    assert "get secret -n gemma gemma-gateway-keys" in notes
    assert "Models: gemma" in notes
    assert "helm test gemma -n gemma" in notes


def test_notes_of_keys_that_are_not_the_charts_do_not_tell_where_one_is() -> None:
    notes = helm_notes("gateway", CHARTS / "gateway" / "examples" / "production.yaml")
    assert "get secret" not in notes
    assert "https://llm.example.com/v1" in notes


def test_every_example_in_the_documentation_renders() -> None:
    page = (CHARTS.parent / "docs" / "helm-gateway.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    assert len(blocks) == 4
    for block in blocks:
        chart, base = (
            ("stack", {"engine": {"model": "google/gemma-3-4b-it"}}) if "gateway" in block else ("gateway", LEAST)
        )
        given = base | block
        if "config" in block:
            given["config"] = base["config"] | block["config"]
        assert helm_template(chart, given)


@pytest.mark.parametrize("chart", ["gateway", "stack"])
def test_every_value_has_a_sentence_and_a_schema(chart: str) -> None:
    text = (CHARTS / chart / "values.yaml").read_text()
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    assert undescribed(yaml.safe_load(text), schema, text, "") == []


def undescribed(values: dict[str, Any], schema: dict[str, Any], text: str, indent: str) -> list[str]:
    """Keys without a comment above them, and keys that the schema does not know or the values do not show."""
    known = schema["properties"]
    found = [key for key in values.keys() ^ known.keys() if key != "global"]
    for key in values.keys() & known.keys():
        if not re.search(rf"(?m)^{indent}#.*\n{indent}{key}:", text):
            found.append(key)
        # Sections that are written in one line, and those whose keys are Kubernetes', say all in one sentence.
        section = re.search(rf"(?m)^{indent}{key}:\n((?:{indent} .*\n)+)", text)
        if section and known[key].get("properties") and key not in ("config", "resources"):
            found += undescribed(values[key], known[key], section[1], indent + "  ")
    return found
