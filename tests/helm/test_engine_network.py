"""Who finds the engine, who may reach it, and what it may reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helm.engine_values import DOWNLOAD, MATRIX, TWO_NODES, values
from tests.helm.rendering import NAMESPACE, Object, helm_notes, helm_template, of_kind, only

ON = {"networkPolicy": {"enabled": True}}
HTTP = [{"port": 8000, "protocol": "TCP"}]
DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def rendered(given: Mapping[str, Any] | None = None) -> list[Object]:
    return helm_template("engine", values(given))


def labels(objects: list[Object]) -> list[dict[str, str]]:
    """Of the pods of Deployment or LeaderWorkerSet: there the leader's first, with what the controller adds."""
    if deployments := of_kind(objects, "Deployment"):
        return [deployments[0]["spec"]["template"]["metadata"]["labels"]]
    group = only(objects, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    index = "leaderworkerset.sigs.k8s.io/worker-index"
    return [
        {**group[template]["metadata"]["labels"], index: number}
        for template, number in (("leaderTemplate", "0"), ("workerTemplate", "1"))
    ]


def selects(selector: Mapping[str, str], pod: Mapping[str, str]) -> bool:
    return selector.items() <= pod.items()


def policies(given: Mapping[str, Any]) -> dict[str, Object]:
    return {found["metadata"]["name"]: found["spec"] for found in of_kind(rendered(given), "NetworkPolicy")}


def test_service_is_headless_and_leads_to_the_engines_port() -> None:
    service = only(rendered({"port": 8080}), "Service")
    assert service["metadata"]["name"] == "gemma-engine"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]


def test_service_and_workload_select_the_engines_pods() -> None:
    objects = rendered()
    (pod,) = labels(objects)
    assert selects(only(objects, "Service")["spec"]["selector"], pod)
    assert selects(only(objects, "Deployment")["spec"]["selector"]["matchLabels"], pod)


def test_of_a_group_only_the_leader_is_found() -> None:
    objects = rendered(TWO_NODES)
    leader, worker = labels(objects)
    selector = only(objects, "Service")["spec"]["selector"]
    assert selects(selector, leader)
    assert not selects(selector, worker)


def test_controllers_own_service_has_another_name() -> None:
    objects = rendered(TWO_NODES)
    names = {found["metadata"]["name"] for found in of_kind(objects, "Service")}
    assert only(objects, "LeaderWorkerSet")["metadata"]["name"] not in names


def test_pods_of_job_and_test_are_not_taken_for_engines() -> None:
    objects = rendered(DOWNLOAD)
    selector = only(objects, "Service")["spec"]["selector"]
    job = only(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    assert not selects(selector, job)
    assert not selects(selector, only(objects, "Pod")["metadata"]["labels"])


def test_gateway_prometheus_and_the_test_are_let_in_and_nobody_else() -> None:
    objects = rendered(ON)
    policy = only(objects, "NetworkPolicy")["spec"]
    assert selects(policy["podSelector"]["matchLabels"], labels(objects)[0])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == HTTP
    gateway, prometheus, test = rule["from"]
    assert gateway["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/part-of": "gemma-gateway",
        "app.kubernetes.io/component": "gateway",
    }
    assert "namespaceSelector" not in gateway
    assert prometheus["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert selects(test["podSelector"]["matchLabels"], only(objects, "Pod")["metadata"]["labels"])


def test_engine_that_downloads_itself_reaches_names_and_the_public_hub() -> None:
    names, hub = policies(ON)["gemma-engine"]["egress"]
    assert names == {"ports": DNS}
    assert hub["ports"] == [{"port": 443, "protocol": "TCP"}]
    peer, _ = hub["to"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(peer["ipBlock"]["except"])


def test_with_a_job_only_the_job_reaches_the_hub() -> None:
    found = policies({**ON, **DOWNLOAD})
    assert [rule["ports"] for rule in found["gemma-engine"]["egress"]] == [DNS]
    job = found["gemma-engine-download"]
    assert [rule["ports"][0]["port"] for rule in job["egress"]] == [53, 443]
    assert "ingress" not in job
    template = only(rendered({**ON, **DOWNLOAD}), "Job")["spec"]["template"]
    assert selects(job["podSelector"]["matchLabels"], template["metadata"]["labels"])


def test_model_from_a_claim_needs_names_alone() -> None:
    found = policies({**ON, "modelArtifacts": {"uri": "pvc://models/gemma"}})
    assert [rule["ports"] for rule in found["gemma-engine"]["egress"]] == [DNS]


def test_pods_of_a_replica_reach_each_other() -> None:
    policy = policies(MATRIX["two nodes"])["gemma-engine"]
    siblings = [{"podSelector": policy["podSelector"]}]
    assert policy["ingress"][1] == {"from": siblings}
    assert policy["egress"][-1] == {"to": siblings}


def test_names_are_asked_where_one_says() -> None:
    servers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    policy = policies({"networkPolicy": {"enabled": True, "dns": servers}})["gemma-engine"]
    assert policy["egress"][0] == {"ports": DNS, "to": servers}


def test_prometheus_operator_finds_the_service() -> None:
    objects = rendered({"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_options_are_off_until_asked_for() -> None:
    assert {found["kind"] for found in rendered()} == {"ServiceAccount", "Service", "Deployment", "Pod"}


def test_notes_name_the_service_and_commands_that_fit() -> None:
    notes = helm_notes("engine", values())
    assert f"dns: {{name: gemma-engine.{NAMESPACE}.svc, port: 8000}}" in notes
    assert (
        f"wait --for=condition=Available --timeout=1h deployment/gemma-engine\n  helm test gemma -n {NAMESPACE}"
        in notes
    )
    assert "--set modelArtifacts.revision=COMMIT" in notes


def test_notes_say_nothing_of_a_revision_that_is_pinned() -> None:
    notes = helm_notes("engine", values({**TWO_NODES, "modelArtifacts": {"revision": "abc"}}))
    assert "No revision" not in notes
    assert "leaderworkerset/gemma-engine-group" in notes
