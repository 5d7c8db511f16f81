"""Turns a short description of a dashboard into the JSON that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

#: What Grafana 10 and later write; older descriptions are migrated when they are loaded.
SCHEMA_VERSION = 39
#: All of our dashboards have it, and find each other by it.
TAG = "gemma"
#: Columns of Grafana's grid.
COLUMNS = 24

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FIRING = 'ALERTS{alertname=~"Gemma.*", alertstate="firing"}'


@dataclass(frozen=True)
class Query:
    """PromQL, and what its lines are called: text with `{{label}}`."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph or number. Alerts link to its `id`, which therefore never changes.

    `unit` is Grafana's name of it. `steps` are values from which the colour is orange, and red; alike: red at once.
    `width` is in columns, `height` in rows of the grid. `stack`: lines add up. `top` ends the axis.
    """

    id: int
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[float, float] | None = None
    stack: bool = False
    top: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a title."""

    id: int
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard: values of a label of a series; all at first."""

    name: str
    label: str
    series: str
    description: str


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana. Alerts link to its `uid`."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]


def rate(series: str, where: str, by: str = "") -> str:
    """A counter's increase in a second, added up by labels."""
    return f"sum{_by(by)} (rate({series}{{{where}}}[$__rate_interval]))"


def total(series: str, where: str, by: str = "") -> str:
    """A gauge, added up by labels."""
    return f"sum{_by(by)} ({series}{{{where}}})"


def quantile(share: float, series: str, where: str, by: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{series}_bucket', where, labels)})"


def percentiles(series: str, where: str, by: str = "") -> list[Query]:
    """Median, 95th and 99th of a hundred, by a label."""
    suffix = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    return [Query(quantile(share, series, where, by), f"p{share * 100:g}{suffix}") for share in (0.5, 0.95, 0.99)]


def or_zero(expr: str, label: str) -> str:
    """The same, or a line at 0 called `none` while nothing of the kind has happened yet: no graph is then empty."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def render(dashboard: Dashboard) -> str:
    """The dashboard's JSON."""
    return json.dumps(_dashboard(dashboard), indent=1, ensure_ascii=False) + "\n"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _dashboard(dashboard: Dashboard) -> Mapping[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_SOURCE, *map(_variable, dashboard.variables)]},
        "annotations": {"list": [_ALERTS]},
        "links": [_SIBLINGS],
        "panels": list(_panels(dashboard.rows)),
    }


_SOURCE = {
    "name": "datasource",
    "label": "Prometheus",
    "description": "The Prometheus that reads gateways and engines.",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
}
_ALERTS = {
    "name": "Alerts",
    "datasource": DATASOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": FIRING,
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}} {{model}} {{engine}} {{instance}}",
    "step": "30s",
}
_SIBLINGS = {
    "type": "dashboards",
    "title": "Gemma",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
}


def _variable(variable: Variable) -> Mapping[str, Any]:
    query = f"label_values({variable.series}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.label,
        "description": variable.description,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Also where there is no such label, as outside Kubernetes.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels(rows: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    """Rows one below the other, their panels from left to right."""
    y = 0
    for row in rows:
        position = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": row.id, "type": "row", "title": row.title, "collapsed": False, "gridPos": position, "panels": []}
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield _panel(panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, position: Mapping[str, int]) -> Mapping[str, Any]:
    return {
        "id": panel.id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            _target(letter, query, panel) for letter, query in zip(ascii_uppercase, panel.queries, strict=False)
        ],
    }


def _defaults(panel: Panel) -> Mapping[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "color": {"mode": "palette-classic"}}
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stack else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    elif panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
    colors: dict[float | None, str] = {None: "green"}
    colors.update(zip(panel.steps or (), ("orange", "red"), strict=False))
    steps = [{"color": color, "value": bound} for bound, color in colors.items()]
    return defaults | {"thresholds": {"mode": "absolute", "steps": steps}}


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "heatmap": {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
        "cellGap": 1,
        "legend": {"show": True},
        "tooltip": {"show": True, "yHistogram": False},
    },
    "bargauge": {
        "orientation": "horizontal",
        "displayMode": "basic",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
}


def _target(letter: str, query: Query, panel: Panel) -> Mapping[str, Any]:
    target: dict[str, Any] = {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        # A list of who has most is of the whole time that is shown, and asked for once.
        "instant": panel.kind == "bargauge",
        "range": panel.kind != "bargauge",
    }
    return target | ({"format": "heatmap"} if panel.kind == "heatmap" else {})
