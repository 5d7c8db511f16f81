"""The stack is a gateway and an engine that fit together: by names, labels, ports, and what the gateway is told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.app import parts
from gateway.engine.gemmas import SHAPES
from gateway.engine.presets import recognise
from gateway.settings import Family, Modality, Settings
from tests.helm.rendering import (
    CHARTS,
    Object,
    RefusedError,
    faults,
    helm_lint,
    helm_notes,
    helm_template,
    of_kind,
    only,
    refusal,
    some,
)
from tests.helm.rendering import _binary as helm

EXAMPLES = sorted((CHARTS / "stack" / "examples").glob("*.yaml"))
#: One of each kind of input, and of each family.
DIFFERENT = ("gemma-3-1b", "gemma-3-4b", "gemma-3n-E2B", "gemma-4-E4B", "gemma-4-31B")
MODEL = "engine.model=google/gemma-3-4b-it"
SMALL = {"engine": {"model": "google/gemma-3-4b-it"}}


def loaded(objects: list[Object], folder: Path) -> Settings:
    path = folder / "config.yaml"
    (written,) = [found for found in of_kind(objects, "ConfigMap") if "config.yaml" in found.get("data", {})]
    path.write_text(written["data"]["config.yaml"])
    return settings.load(path)


def deployments(objects: list[Object]) -> dict[str, Object]:
    return {found["metadata"]["name"]: found["spec"]["template"] for found in of_kind(objects, "Deployment")}


def selects(selector: dict[str, Any], template: Object) -> bool:
    return bool(selector["matchLabels"].items() <= template["metadata"]["labels"].items())


def lets_through(rules: list[Object], way: str, other: Object, port: object) -> bool:
    """Whether a rule has the port, and a peer that selects the pod."""
    return any(
        port in [each["port"] for each in rule["ports"]]
        and any(selects(peer["podSelector"], other) for peer in rule[way] if peer.keys() == {"podSelector"})
        for rule in rules
    )


def test_one_value_is_enough(version: str) -> None:
    assert faults(helm_template("stack", None, MODEL), version) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_renders_objects_that_kubernetes_takes(example: Path, version: str) -> None:
    assert faults(helm_template("stack", example), version) == []


@pytest.mark.parametrize("values", some([SMALL, *EXAMPLES], [SMALL]), ids=["values", *(path.stem for path in EXAMPLES)])
def test_helm_finds_nothing_to_say_about_any_values_file(values: Any) -> None:
    assert "0 chart(s) failed" in helm_lint("stack", values)


def test_the_gateway_finds_the_engine_by_its_service(tmp_path: Path) -> None:
    objects = helm_template("stack", None, MODEL)
    (service,) = [each for each in of_kind(objects, "Service") if each["spec"].get("clusterIP") == "None"]
    engine = loaded(objects, tmp_path).engines["default"]
    assert engine.dns is not None
    assert engine.dns.name == service["metadata"]["name"] == "gemma-engine"
    template = deployments(objects)["gemma-engine"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    assert engine.dns.port in [port["containerPort"] for port in container["ports"]]


def test_renamed_and_moved_the_two_still_fit(tmp_path: Path) -> None:
    values = {
        "engine": {"model": "google/gemma-3-4b-it", "fullnameOverride": "model", "port": 9000},
        "gateway": {"fullnameOverride": "front", "networkPolicy": {"engines": {"ports": [9000]}}},
    }
    objects = helm_template("stack", values)
    assert loaded(objects, tmp_path).engines["default"].dns == settings.DnsSettings(name="model", port=9000)
    config = next(each for each in of_kind(objects, "ConfigMap") if "config.yaml" in each.get("data", {}))
    volumes = deployments(objects)["front"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes


def test_both_policies_let_the_gateway_reach_the_engine_and_nobody_else() -> None:
    objects = helm_template("stack", None, MODEL)
    templates = deployments(objects)
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    front, engine = policies["gemma-gateway"], policies["gemma-engine"]
    assert selects(front["podSelector"], templates["gemma-gateway"])
    assert selects(engine["podSelector"], templates["gemma-engine"])
    assert lets_through(front["egress"], "to", templates["gemma-engine"], 8000)
    assert lets_through(engine["ingress"], "from", templates["gemma-gateway"], 8000)
    assert not lets_through(engine["ingress"], "from", templates["gemma-engine"], 8000)


@pytest.mark.parametrize("gemma", some(SHAPES, DIFFERENT))
def test_the_gateway_is_told_what_the_model_is(gemma: str, tmp_path: Path) -> None:
    name = f"google/{gemma}-it"
    preset = recognise(name)
    model = loaded(helm_template("stack", None, f"engine.model={name}"), tmp_path).models[name]
    assert (model.family, model.modalities, model.max_model_len) == (
        preset.family,
        preset.modalities,
        preset.max_model_len,
    )


def test_the_engine_serves_the_names_that_the_gateway_asks_for(tmp_path: Path) -> None:
    objects = helm_template("stack", {"engine": {"model": "google/gemma-3-4b-it", "modelAliases": ["gemma"]}})
    found = loaded(objects, tmp_path)
    words = deployments(objects)["gemma-engine"]["spec"]["containers"][0]["args"]
    assert "google/gemma-3-4b-it" in words[words.index("--served-model-name") + 1 :]
    assert found.models["gemma"].targets[0].model == "google/gemma-3-4b-it"


def test_what_the_configuration_says_about_engine_and_model_wins(tmp_path: Path) -> None:
    own = {
        "engines": {"default": {"hold": {"seconds": 99}}, "other": {"dns": {"name": "other-engine"}}},
        "models": {
            "google/gemma-3-4b-it": {"max_model_len": 4096, "defaults": {"temperature": 0.5}},
            "more": {"engine": "other", "served_name": "m"},
        },
    }
    found = loaded(helm_template("stack", SMALL | {"gateway": {"config": own}}), tmp_path)
    assert found.engines["default"].dns == settings.DnsSettings(name="gemma-engine")
    assert found.engines["default"].hold.seconds == 99
    assert found.models["google/gemma-3-4b-it"].max_model_len == 4096
    assert found.models["google/gemma-3-4b-it"].family == "gemma3"
    assert found.models.keys() == {"google/gemma-3-4b-it", "more"}


def test_the_engine_may_be_found_in_another_way(tmp_path: Path) -> None:
    own = {"engines": {"default": {"kubernetes": {"service": "gemma-engine"}}}}
    values = SMALL | {
        "gateway": {"config": own, "rbac": {"create": True}, "networkPolicy": {"apiServer": ["10.0.0.1/32"]}}
    }
    objects = helm_template("stack", values)
    engine = loaded(objects, tmp_path).engines["default"]
    assert engine.dns is None
    assert engine.kubernetes is not None
    assert only(objects, "Role")["metadata"]["namespace"] == "gemma"


def test_a_gateway_could_start_by_the_configuration(tmp_path: Path) -> None:
    objects = helm_template("stack", None, MODEL)
    found = loaded(objects, tmp_path)
    (secret,) = of_kind(objects, "Secret")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "keys.yaml").write_text(secret["stringData"]["keys.yaml"])
    auth = found.auth.model_copy(update={"keys_directory": tmp_path / "keys"})
    parts.check(found.model_copy(update={"auth": auth}))
    assert parts.doubts(found.model_copy(update={"auth": auth})) == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "engine.model is empty: name a Gemma, such as engine.model=google/gemma-3-4b-it"),
    (SMALL | {"gatway": {}}, "Additional property gatway is not allowed"),
    (SMALL | {"gateway": {"replica": 2}}, "Additional property replica is not allowed"),
    (SMALL | {"gateway": {"config": {"modls": {}}}}, "config: Additional property modls is not allowed"),
    (
        SMALL | {"gateway": {"configMap": {"create": True}}},
        "gateway.configMap.create would make a second configuration beside the one of this chart: set "
        "gateway.configMap.create=false",
    ),
    (
        {"engine": {"model": "acme/chatty"}},
        "the name acme/chatty does not tell which Gemma it is: set model.family=gemma4 and model.modalities={text,im",
    ),
    (
        {"engine": {"model": "acme/chatty"}, "model": {"family": "gemma4"}},
        "the name acme/chatty does not tell what the model takes: set model.modalities={text,image}",
    ),
    (
        {"engine": {"model": "google/gemma-3-4b-it", "port": 9000}},
        "the engine listens on port 9000, which the gateway's NetworkPolicy does not let it reach: set "
        "gateway.networkPolicy.engines.ports={9000}",
    ),
    (
        {
            "engine": {
                "model": "google/gemma-3-4b-it",
                "keda": {"enabled": True, "serverAddress": "http://p", "scaleToZero": True},
            }
        },
        "engine.keda.scaleToZero leaves no engine ready, and with gateway.readiness=engine no request would reach a "
        "gateway to wake one: set gateway.readiness=process",
    ),
    (
        {
            "engine": {
                "model": "google/gemma-3-4b-it",
                "keda": {"enabled": True, "serverAddress": "http://p", "gatewayEngine": "x"},
            }
        },
        "engine.keda.gatewayEngine=x: the engine of this chart is called default in the gateway's configuration: set "
        "engine.keda.gatewayEngine=default",
    ),
    (
        SMALL | {"gateway": {"config": {"models": {"m": {"engine": "b", "served_name": "m"}}}}},
        'config.models.m is a model of the engine "b", which is not among config.engines (default): add it there',
    ),
    (
        SMALL | {"gateway": {"config": {"server": {"port": 1}}}},
        "config.server.port is the chart's to set: remove it",
    ),
]


@pytest.mark.parametrize(("values", "text"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_what_does_not_fit_is_refused_with_its_fix(values: dict[str, Any], text: str) -> None:
    assert text in refusal("stack", values)


def test_a_model_of_another_name_is_taken_once_it_is_described(tmp_path: Path) -> None:
    engine = {"model": "chatty", "modelArtifacts": {"uri": "pvc://models/chatty"}}
    values = {"engine": engine, "model": {"family": "gemma4", "modalities": ["text", "audio"]}}
    model = loaded(helm_template("stack", values), tmp_path).models["chatty"]
    assert (model.family, model.modalities) == (Family.GEMMA4, frozenset({Modality.TEXT, Modality.AUDIO}))


def test_notes_tell_of_both() -> None:
    notes = helm_notes("stack", None, MODEL)
    assert "Models: google/gemma-3-4b-it" in notes
    assert "get secret -n gemma gemma-gateway-keys" in notes
    assert "The engine gemma-engine loads google/gemma-3-4b-it" in notes


def test_helm_builds_a_package_that_renders_the_same(tmp_path: Path) -> None:
    shutil.copytree(CHARTS, tmp_path / "helm", ignore=linked)
    for words in (["dependency", "build", "helm/stack"], ["package", "helm/stack"]):
        subprocess.run([helm(), *words], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    (package,) = tmp_path.glob("stack-*.tgz")
    try:
        packed = helm_template(package, None, MODEL)
    except RefusedError as refused:
        pytest.fail(str(refused))
    assert without_keys(packed) == without_keys(helm_template("stack", None, MODEL))


def without_keys(objects: list[Object]) -> list[Object]:
    """All but the generated key, which is another each time."""
    return sorted((each for each in objects if each["kind"] != "Secret"), key=yaml.safe_dump)


def linked(folder: str, names: list[str]) -> list[str]:
    """The links by which the stack finds the charts beside it: a build fetches them itself."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
