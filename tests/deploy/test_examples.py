"""The example configurations are good, and the charts take what Argo CD and Flux would give them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.access import key_edits
from gateway.app import parts
from gateway.engine import serve
from gateway.engine.presets import recognise
from gateway.settings import Grant, Settings
from tests.deploy.test_dockerfile import PROJECT, ROOT
from tests.helm.rendering import CHARTS, Object, helm_template

EXAMPLES = ROOT / "deploy" / "examples"
CONFIGURATIONS = sorted(path for path in EXAMPLES.glob("*.yaml") if ".compose." not in path.name)


#: The one that `serve` completes, and the model that it names.
SERVED, MODEL = "one-gpu", "google/gemma-4-12B-it"


def loaded(example: Path, folder: Path) -> Settings:
    """The example where it has a key file beside it."""
    copy = folder / example.name
    shutil.copy(example, copy)
    key_edits.create(folder / "keys.yaml", "alice", Grant())
    if example.stem == SERVED:
        request = serve.Request(
            MODEL, served_name="gemma", config=copy, overrides={"server": {"port": 0, "admin_port": 0}}
        )
        return serve.effective_settings(request, recognise(MODEL), folder / "engine.sock")
    return settings.load(copy)


@pytest.mark.parametrize("example", CONFIGURATIONS, ids=lambda path: path.stem)
def test_a_gateway_could_start_with_an_example(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = loaded(example, tmp_path)
    parts.check(found)
    assert parts.doubts(found) == []


def test_the_one_gpu_example_is_started_by_what_it_says() -> None:
    words = (EXAMPLES / f"{SERVED}.yaml").read_text()
    assert f"gemma-gateway serve {MODEL} --served-model-name gemma --config {SERVED}.yaml" in words


def test_every_case_has_its_example() -> None:
    assert {path.stem for path in CONFIGURATIONS} == {"one-gpu", "eight-gpus", "models", "canary", "jwt"}


def test_canary_is_last_and_falls_back(tmp_path: Path) -> None:
    models = loaded(EXAMPLES / "canary.yaml", tmp_path).models
    targets = models["gemma"].targets
    assert targets is not None
    assert [(target.model, target.weight) for target in targets] == [("gemma-now", 95), ("gemma-next", 5)]
    assert models["gemma-next"].fallbacks == ("gemma-now",)
    assert models["gemma-next"].served_name == models["gemma-now"].served_name


def test_sockets_of_the_eight_gpus_example_differ(tmp_path: Path) -> None:
    urls = loaded(EXAMPLES / "eight-gpus.yaml", tmp_path).engines["default"].urls
    assert urls is not None
    assert len(set(urls)) == 4


def documents(name: str, kind: str) -> Iterator[Mapping[str, Any]]:
    for document in yaml.safe_load_all((ROOT / "deploy" / "gitops" / name).read_text()):
        if document["kind"] == kind:
            yield document["spec"]


def argo() -> Iterator[tuple[Path, list[Object]]]:
    """Each Application's chart, and what it renders to."""
    for spec in documents("argocd.yaml", "Application"):
        chart = ROOT / spec["source"]["path"]
        helm = spec["source"]["helm"]
        files = [yaml.safe_load((chart / name).read_text()) for name in helm.get("valueFiles", ())]
        yield chart, helm_template(chart, merged(*files, helm["valuesObject"]), release=helm["releaseName"])


def flux() -> Iterator[tuple[Path, list[Object]]]:
    """Each HelmRelease's chart, and what it renders to."""
    for spec in documents("flux.yaml", "HelmRelease"):
        chart = (ROOT / spec["chart"]["spec"]["chart"]).resolve()
        files = [yaml.safe_load((ROOT / name).read_text()) for name in spec["chart"]["spec"].get("valuesFiles", ())]
        yield chart, helm_template(chart, merged(*files, spec["values"]), release=spec["releaseName"])


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            old = whole.get(key)
            whole[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


@pytest.mark.parametrize("tool", [argo, flux], ids=["argo", "flux"])
def test_gateway_asks_for_the_service_of_the_engine_that_is_installed_beside_it(tool: Any) -> None:
    rendered = dict(tool())
    assert rendered.keys() == {CHARTS / "engine", CHARTS / "gateway"}
    services = {o["metadata"]["name"] for o in rendered[CHARTS / "engine"] if o["kind"] == "Service"}
    (config,) = (o for o in rendered[CHARTS / "gateway"] if o["kind"] == "ConfigMap" and "config.yaml" in o["data"])
    (engine,) = yaml.safe_load(config["data"]["config.yaml"])["engines"].values()
    assert engine["dns"]["name"] in services


def test_argo_gets_keys_that_exist_as_it_cannot_look_up_those_it_made() -> None:
    rendered = dict(argo())
    assert [o for o in rendered[CHARTS / "gateway"] if o["kind"] == "Secret"] == []


def test_key_that_the_page_for_flux_names_is_the_one_that_the_chart_makes() -> None:
    names = {o["metadata"]["name"] for o in dict(flux())[CHARTS / "gateway"] if o["kind"] == "Secret"}
    text = (ROOT / "deploy" / "gitops" / "flux.yaml").read_text()
    assert [name for name in names if f"secret {name}" in text] != []


def test_both_take_the_release_of_this_version() -> None:
    tag = f"v{PROJECT['version']}"
    assert {spec["source"]["targetRevision"] for spec in documents("argocd.yaml", "Application")} == {tag}
    assert {spec["ref"]["tag"] for spec in documents("flux.yaml", "GitRepository")} == {tag}
