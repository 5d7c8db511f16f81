"""What the chart's dashboards and rules ask Prometheus for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "gateway"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = sorted((CHART / "rules").glob("*.yaml"))

Json = dict[str, Any]

#: What Grafana puts in: a range that spans some scrapes, the time shown, and every value of the variables.
_PUT_IN = {"$__rate_interval": "30s", "$__range": "5m"}
_SERIES = re.compile(r"\b((?:gemma_gateway_|gemma:|vllm:|DCGM_FI_|process_)[\w:]+|up\b|ALERTS\b)(\{[^}]*\})?")


@dataclass(frozen=True)
class Asked:
    """A query of a panel, or the expression of a rule."""

    place: str
    expression: str

    @property
    def selectors(self) -> list[str]:
        """Series that it takes, with their matchers."""
        return [name + (matchers or "") for name, matchers in _SERIES.findall(self.expression)]

    @property
    def names(self) -> set[str]:
        """Names of the series that it takes."""
        return {name for name, _ in _SERIES.findall(self.expression)}


@cache
def dashboard(path: Path) -> Json:
    document: Json = json.loads(path.read_text())
    return document


def panels(document: Json) -> list[Json]:
    """Those that show something."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def expand(document: Json, expression: str) -> str:
    """A query as Grafana sends it when all is chosen."""
    for text, value in _PUT_IN.items():
        expression = expression.replace(text, value)
    for variable in document["templating"]["list"]:
        expression = expression.replace(f"${variable['name']}", variable.get("allValue", ""))
    return expression


def queries() -> list[Asked]:
    """Every query of every panel, and those of annotations and variables."""
    return [asked for path in DASHBOARDS for asked in _queries(path)]


def _queries(path: Path) -> Iterator[Asked]:
    document = dashboard(path)
    for panel in panels(document):
        for target in panel["targets"]:
            place = f"{path.stem} {panel['id']} {panel['title']}"
            yield Asked(place, expand(document, target["expr"]))
    for annotation in document["annotations"]["list"]:
        yield Asked(f"{path.stem} annotation", expand(document, annotation["expr"]))
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            series = variable["definition"].removeprefix("label_values(").partition(",")[0]
            yield Asked(f"{path.stem} ${variable['name']}", series)


def rules() -> list[Json]:
    """Every rule."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[Json]:
    """Every alert."""
    return [rule for rule in rules() if "alert" in rule]


def expressions() -> list[Asked]:
    """What every rule asks for."""
    return [Asked(str(rule.get("alert") or rule.get("record")), rule["expr"]) for rule in rules()]
