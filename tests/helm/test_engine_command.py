"""The command that the engine's pods run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import engine as engine_command
from gateway.engine.gemmas import SHAPES
from gateway.engine.presets import recognise
from gateway.settings import Modality
from tests.helm.engine_values import COMMIT, DOWNLOAD, EVERYTHING, MATRIX, MODEL, OCI, TWO_NODES, values
from tests.helm.profiles import FOLDER
from tests.helm.rendering import NEWEST, Object, Values, helm_template, only, pod_specs, some


def container(given: Values = None, *sets: str, **options: str | bool) -> Object:
    """The engine's container, of the leader where there are several."""
    wanted = given if isinstance(given, Path) else values(given)
    spec = pod_specs(helm_template("engine", wanted, *sets, **options))[0]
    found: Object = spec["containers"][0]
    return found


def words(given: Values = None, *sets: str, **options: str | bool) -> list[str]:
    """The arguments behind `gemma-gateway engine`."""
    command = container(given, *sets, **options)
    assert (command["command"], command["args"][0]) == (["gemma-gateway"], "engine")
    return [str(word) for word in command["args"][1:]]


def flags(given: Values = None, *sets: str, **options: str | bool) -> list[str]:
    """What is for vLLM."""
    said = words(given, *sets, **options)
    return said[said.index("--") + 1 :]


def variables(spec: Object) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in spec["env"]}


def test_model_comes_first_then_our_options_then_vllms_flags() -> None:
    assert words() == [
        *(MODEL, "--host=0.0.0.0", "--port=8000", "--drain-seconds=60", "--"),
        *("--served-model-name", MODEL, "--tensor-parallel-size=1"),
    ]


def test_options_are_ones_that_the_command_has() -> None:
    said = words({"draft": True, "warmUp": False, "drainSeconds": 7.5, "host": "::", "port": 8080})
    context = engine_command.make_context("engine", said)
    assert context.params == {
        "model": MODEL,
        "host": "::",
        "port": 8080,
        "uds": None,
        "drain_seconds": 7.5,
        "draft": True,
        "no_warm_up": True,
        "engine_args": tuple(flags()),
    }


def test_values_of_flags_are_written_as_vllm_reads_them() -> None:
    given: dict[str, Any] = {
        "a": 65536,
        "b": 100_000_000,
        "c": 0.85,
        "d": True,
        "e": False,
        "f": "fp8",
        "g": "",
        "h": ["a", 2],
        "i": {"image": 8, "video": 0},
        "j": None,
    }
    assert flags({"args": given})[len(flags()) :] == [
        *("--a=65536", "--b=100000000", "--c=0.85", "--d", "--no-e", "--f=fp8", "--g=", "--h", "a", "2"),
        '--i={"image":8,"video":0}',
    ]


def test_flags_of_the_user_come_last_and_win() -> None:
    said = flags({"args": {"max_model_len": 8192}, "extraArgs": ["--seed=1"]})
    assert said[-2:] == ["--max-model-len=8192", "--seed=1"]


def test_names_for_clients_are_the_model_and_its_aliases() -> None:
    assert flags({"modelAliases": ["gemma", "large"]})[:4] == ["--served-model-name", MODEL, "gemma", "large"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, MODEL),
        ({"modelArtifacts": {"uri": "hf://me/gemma-4-31B-tuned"}}, "me/gemma-4-31B-tuned"),
        ({"modelArtifacts": {"uri": "pvc://models/tuned/31b"}}, "/models/tuned/31b"),
        ({"modelArtifacts": {"uri": "pvc://models"}}, "/models"),
        (OCI, "/models/model"),
        ({"modelArtifacts": {"uri": "oci://registry/gemma:1"}}, "/models"),
        ({"modelArtifacts": {"uri": "s3://models/gemma-4-31B-it"}}, "s3://models/gemma-4-31B-it"),
    ],
)
def test_weights_come_from_where_the_uri_says_under_the_models_name(given: dict[str, Any], expected: str) -> None:
    said = words(given, kube_version=NEWEST)
    assert said[0] == expected
    assert said[said.index("--served-model-name") + 1] == MODEL


def test_revision_is_pinned() -> None:
    assert f"--revision={COMMIT}" in flags({"modelArtifacts": {"revision": COMMIT}})


def test_store_is_streamed_with_the_credentials_of_a_secret() -> None:
    found = container(MATRIX["store"])
    assert "--load-format=runai_streamer" in found["args"]
    assert found["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert variables(found)["AWS_ENDPOINT_URL"] == "https://minio:9000"
    assert variables(found)["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_token_of_the_hub_comes_from_a_secret() -> None:
    given = variables(container({"modelArtifacts": {"hfToken": {"existingSecret": "hub"}}}))
    assert given["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_engine_asks_the_hub_for_nothing_once_a_job_has_downloaded() -> None:
    assert "HF_HUB_OFFLINE" not in variables(container())
    assert variables(container(DOWNLOAD))["HF_HUB_OFFLINE"] == "1"


def test_services_set_no_variables_that_vllm_would_read() -> None:
    assert all(spec["enableServiceLinks"] is False for spec in pod_specs(helm_template("engine", values(TWO_NODES))))


def test_one_value_sets_drain_hook_and_grace_period() -> None:
    spec = pod_specs(helm_template("engine", values({"drainSeconds": 90})))[0]
    (engine,) = spec["containers"]
    pause = engine["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert "--drain-seconds=90" in engine["args"]
    assert pause > 0
    # vLLM takes itself down within 15 s (gateway.engine.service.Timing).
    assert spec["terminationGracePeriodSeconds"] == pause + 90 + 15


def test_worker_outlives_the_drain_of_its_leader() -> None:
    leader, worker = pod_specs(helm_template("engine", values({**TWO_NODES, "drainSeconds": 90})))[:2]
    pauses = [spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] for spec in (leader, worker)]
    assert pauses[1] - pauses[0] == 90
    assert pauses[1] < worker["terminationGracePeriodSeconds"]


def test_pods_of_a_replica_find_each_other() -> None:
    leader, worker = (spec["containers"][0] for spec in pod_specs(helm_template("engine", values(TWO_NODES)))[:2])
    joint = ["--nnodes=$(LWS_GROUP_SIZE)", "--master-addr=$(LWS_LEADER_ADDRESS)", "--master-port=29501"]
    assert set(leader["args"]) - set(worker["args"]) == {"--node-rank=0"}
    assert set(worker["args"]) - set(leader["args"]) == {"--node-rank=$(LWS_WORKER_INDEX)", "--headless"}
    assert set(joint) <= set(leader["args"])
    assert "VLLM_HOST_IP" in variables(leader)
    assert leader["resources"]["limits"]["nvidia.com/gpu"] == 8


def test_ray_joins_the_pods_by_option() -> None:
    leader, worker = (
        spec["containers"][0] for spec in pod_specs(helm_template("engine", values(MATRIX["two nodes with ray"])))[:2]
    )
    assert leader["command"][2].startswith("ray start --head --port=29501")
    assert leader["command"][-1] == "gemma-gateway"
    assert "--distributed-executor-backend=ray" in leader["args"]
    assert (worker["command"], worker["args"][0]) == (["ray", "start"], "--address=$(LWS_LEADER_ADDRESS):29501")


@pytest.mark.parametrize("gemma", some(SHAPES, ("gemma-3-270m", "gemma-3-1b", "gemma-3-4b", "gemma-3n-E2B")))
def test_the_test_shows_an_image_to_every_gemma_that_sees(gemma: str) -> None:
    sees = Modality.IMAGE in recognise(f"google/{gemma}-it").modalities
    assert tried({"model": f"google/{gemma}-it"}) is sees


def test_the_test_shows_an_image_if_it_is_told_to() -> None:
    assert tried({"test": {"image": False}}) is False
    assert tried({"model": "google/gemma-3-1b-it", "test": {"image": True}}) is True


def tried(given: Mapping[str, Any]) -> bool:
    """Whether the chart's test asks about an image, too."""
    (ask,) = only(helm_template("engine", values(given)), "Pod")["spec"]["containers"]
    return {"true": True, "false": False}[ask["args"][3]]


ARGUED: Mapping[str, Values] = {
    "everything": EVERYTHING,
    "two nodes": {**TWO_NODES},
    "store": MATRIX["store"],
    "switches": {"args": {"enforce-eager": True, "enable-prefix-caching": False, "cudagraph-capture-sizes": [1, 2]}},
    "profile": FOLDER / "values-gemma-4-31b-8xh100.yaml",
    "profile of a small one": FOLDER / "values-gemma-3n-e2b-l4.yaml",
}


@pytest.mark.engine
@pytest.mark.parametrize("given", list(ARGUED.values()), ids=list(ARGUED))
def test_vllms_own_parser_takes_the_arguments(given: Values) -> None:
    from gateway.engine import arguments
    from gateway.engine.arguments import Target

    model = words(given)[0]
    variables = {"$(LWS_GROUP_SIZE)": "2", "$(LWS_LEADER_ADDRESS)": "leader"}
    said = flags(given)
    for name, value in variables.items():
        said = [word.replace(name, value) for word in said]
    namespace = arguments.parse(Target(model, "0.0.0.0", 8000, None, 60), recognise(model), said).namespace  # noqa: S104
    assert namespace.served_model_name[0].startswith("google/gemma-")
    chosen = dict(word.removeprefix("--").split("=", 1) for word in said if "=" in word)
    for name in ("max-model-len", "tensor-parallel-size", "nnodes", "seed", "load-format"):
        if name in chosen:
            assert str(getattr(namespace, name.replace("-", "_"))) == chosen[name]
