"""How many engines there are, who decides on it, and how they are spread and replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.helm.engine_values import DOWNLOAD, KEDA, MATRIX, TWO_NODES, values
from tests.helm.rendering import NAMESPACE, Object, helm_template, of_kind, only, pod_specs


def one(kind: str, given: Mapping[str, Any] | None = None) -> Object:
    return only(helm_template("engine", values(given)), kind)


def queries(given: Mapping[str, Any]) -> dict[str, Object]:
    return {each["name"]: each["metadata"] for each in one("ScaledObject", given)["spec"]["triggers"]}


def test_replicas_are_as_many_as_one_says() -> None:
    assert one("Deployment", {"replicas": 3})["spec"]["replicas"] == 3
    assert one("LeaderWorkerSet", {**TWO_NODES, "replicas": 3})["spec"]["replicas"] == 3


@pytest.mark.parametrize("scaler", [{"hpa": {"enabled": True}}, KEDA])
def test_number_is_left_alone_where_something_scales(scaler: Mapping[str, Any]) -> None:
    assert "replicas" not in one("Deployment", scaler)["spec"]
    assert "replicas" not in one("LeaderWorkerSet", {**TWO_NODES, **scaler})["spec"]


@pytest.mark.parametrize(
    ("nodes", "kind", "name"),
    [({}, "Deployment", "gemma-engine"), (TWO_NODES, "LeaderWorkerSet", "gemma-engine-group")],
)
def test_scalers_aim_at_the_workload(nodes: Mapping[str, Any], kind: str, name: str) -> None:
    workload = one(kind, nodes)
    expected = {"apiVersion": workload["apiVersion"], "kind": kind, "name": name}
    assert workload["metadata"]["name"] == name
    assert one("HorizontalPodAutoscaler", {**nodes, "hpa": {"enabled": True}})["spec"]["scaleTargetRef"] == expected
    assert one("ScaledObject", {**nodes, **KEDA})["spec"]["scaleTargetRef"] == expected


def test_hpa_goes_by_what_waits_unless_told_otherwise() -> None:
    (metric,) = one("HorizontalPodAutoscaler", {"hpa": {"enabled": True}})["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "vllm:num_requests_waiting"
    other = [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]
    given = {"hpa": {"enabled": True, "metrics": other}}
    assert one("HorizontalPodAutoscaler", given)["spec"]["metrics"] == other


def test_keda_asks_for_what_is_held_what_waits_and_the_kv_cache() -> None:
    ours = f'{{namespace="{NAMESPACE}",service="gemma-engine"}}'
    found = queries(KEDA)
    assert found["held"]["query"] == 'sum(gemma_gateway_engine_requests_held{engine="default"}) or vector(0)'
    assert found["waiting"]["query"] == f"sum(vllm:num_requests_waiting{ours}) or vector(0)"
    assert found["kv-cache"]["query"] == f"sum(vllm:kv_cache_usage_perc{ours}) or vector(0)"
    assert [each["threshold"] for each in found.values()] == ["4", "4", "0.8"]


def test_keda_picks_series_and_engine_as_one_says() -> None:
    found = queries({"keda": {**KEDA["keda"], "gatewayEngine": "large", "selector": 'job="engines"'}})
    assert 'engine="large"' in found["held"]["query"]
    assert '{job="engines"}' in found["waiting"]["query"]


def test_keda_scales_to_zero_by_option_only() -> None:
    assert one("ScaledObject", KEDA)["spec"]["minReplicaCount"] == 1
    assert one("ScaledObject", MATRIX["scaled from zero"])["spec"]["minReplicaCount"] == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"maxUnavailable": 0}, {"maxUnavailable": 0}),
        ({"maxUnavailable": "", "minAvailable": 2}, {"minAvailable": 2}),
    ],
)
def test_budget_counts_the_pods_that_answer(given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    spec = one("PodDisruptionBudget", {"pdb": {"enabled": True, **given}})["spec"]
    assert {key: value for key, value in spec.items() if key != "selector"} == expected
    assert spec["selector"]["matchLabels"] == one("Service")["spec"]["selector"]


def test_replicas_are_spread_over_nodes_and_zones() -> None:
    (spec,) = (spec for spec in pod_specs([one("Deployment")]))
    spread = spec["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(each["labelSelector"]["matchLabels"] == one("Service")["spec"]["selector"] for each in spread)


def test_workers_are_not_kept_from_their_leader() -> None:
    leader, worker = pod_specs([one("LeaderWorkerSet", TWO_NODES)])
    assert "topologySpreadConstraints" in leader
    assert "topologySpreadConstraints" not in worker


def test_group_is_as_large_as_its_nodes_and_lives_and_dies_together() -> None:
    given = {**TWO_NODES, "multiNode": {"nodes": 2, "exclusiveTopology": "example.org/rack"}}
    found = one("LeaderWorkerSet", given)
    template = found["spec"]["leaderWorkerTemplate"]
    assert (template["size"], template["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    assert found["metadata"]["annotations"]["leaderworkerset.sigs.k8s.io/exclusive-topology"] == "example.org/rack"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "RollingUpdate"),
        ({"cache": {"enabled": True}}, "Recreate"),
        ({"cache": {"enabled": True, "accessMode": "ReadWriteMany"}}, "RollingUpdate"),
        ({"cache": {"enabled": True, "existingClaim": "models"}}, "RollingUpdate"),
        ({"strategy": {"type": "Recreate"}}, "Recreate"),
    ],
)
def test_new_pods_come_first_unless_the_cache_is_bound_to_a_node(given: Mapping[str, Any], kind: str) -> None:
    assert one("Deployment", given)["spec"]["strategy"]["type"] == kind


def test_slow_load_is_no_failed_rollout() -> None:
    spec = one("Deployment", {"probes": {"startup": {"seconds": 7200, "periodSeconds": 7}}})["spec"]
    startup = spec["template"]["spec"]["containers"][0]["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 7200
    assert spec["progressDeadlineSeconds"] > 7200


def test_engine_waits_for_the_mark_that_the_job_leaves() -> None:
    objects = helm_template("engine", values(DOWNLOAD))
    (wait,) = only(objects, "Deployment")["spec"]["template"]["spec"]["initContainers"]
    job = only(objects, "Job")["spec"]["template"]["spec"]
    assert wait["args"][-1] == job["containers"][0]["args"][-1]
    claims = [
        volume["persistentVolumeClaim"]
        for spec in pod_specs(objects)
        for volume in spec.get("volumes", [])
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [{"claimName": "gemma-engine"}] * 2
    assert only(objects, "PersistentVolumeClaim")["metadata"]["name"] == "gemma-engine"


def test_claim_of_others_is_used_and_not_made() -> None:
    objects = helm_template("engine", values(MATRIX["cache shared by releases"]))
    assert of_kind(objects, "PersistentVolumeClaim") == []
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}} in pod_specs(objects)[0]["volumes"]
