"""The alerts fire when they should, and lead to a page and to a panel that are there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.helm.rendering import helm_template, of_kind
from tests.helm.test_gateway import LEAST
from tests.observability.declared import (
    DASHBOARDS,
    ROOT,
    RULES,
    Asked,
    Json,
    alerts,
    dashboard,
    expand,
    expressions,
    panels,
    queries,
    rules,
)
from tests.observability.prometheus import promtool

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))

#: Parts of a histogram, by which it is known.
_PARTS = re.compile(r"_(?:bucket|count|sum)$")

each_alert = pytest.mark.parametrize("alert", alerts(), ids=[rule["alert"] for rule in alerts()])


@cache
def cases() -> list[Json]:
    """What is expected of an alert at some time."""
    tests = [test for path in CASES for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test["alert_rule_test"]]


def families(names: set[str]) -> set[str]:
    """Series by what the reference calls them."""
    return {_PARTS.sub("", name) for name in names}


def table(page: str) -> set[str]:
    """The names in the first column of a page's tables."""
    rows = re.findall(r"(?m)^\| (`.*?) \|", (ROOT / "docs" / page).read_text())
    return {name for row in rows for name in re.findall(r"`([\w:]+)`", row)}


def test_prometheus_takes_every_rule() -> None:
    assert "SUCCESS" in promtool("check", "rules", *RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


@each_alert
def test_firing_and_not_firing_are_both_tested(alert: Json) -> None:
    found = {bool(case["exp_alerts"]) for case in cases() if case["alertname"] == alert["alert"]}
    assert found == {True, False}


@each_alert
def test_alert_says_what_is_wrong_how_badly_and_where_to_read_on(alert: Json) -> None:
    annotations = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["alert"].startswith("Gemma")
    assert len(annotations["summary"]) < 90
    assert re.search(r"\$value|\$labels", annotations["description"])
    assert alert["alert"] in (ROOT / annotations["runbook_url"]).read_text()


@each_alert
def test_alert_leads_to_a_panel_of_what_it_is_about(alert: Json) -> None:
    url = urlsplit(alert["annotations"]["dashboard_url"])
    document = next(found for found in map(dashboard, DASHBOARDS) if url.path == f"/d/{found['uid']}")
    (number,) = parse_qs(url.query)["viewPanel"]
    panel = next(panel for panel in panels(document) if panel["id"] == int(number))
    shown = {name for t in panel["targets"] for name in Asked("", expand(document, t["expr"])).names}
    assert resolved(shown) & resolved(Asked("", alert["expr"]).names) != set()


def resolved(names: set[str]) -> set[str]:
    """The same, with what recording rules are made of."""
    recorded = {rule["record"]: Asked("", rule["expr"]).names for rule in rules() if "record" in rule}
    while new := {part for name in names for part in recorded.get(name, set())} - names:
        names = names | new
    return families(names - {"up"})


def test_every_series_of_the_gateway_is_shown_or_watched_and_every_one_that_is_exists() -> None:
    used = families({name for asked in [*queries(), *expressions()] for name in asked.names})
    assert {name for name in used if name.startswith("gemma_gateway_")} == table("metrics.md")


def test_every_series_of_others_that_is_used_stands_in_the_documentation_and_back() -> None:
    used = families({name for asked in [*queries(), *expressions()] for name in asked.names})
    others = {name for name in used if not name.startswith("gemma_gateway_")} - {"up", "ALERTS"}
    recorded = {name.rpartition(":")[0] if "_burn:" in name else name for name in others}
    assert recorded == {name for name in table("observability.md") if not name.startswith("Gemma")}


def test_documentation_has_every_alert_and_no_other() -> None:
    told = {name for name in table("observability.md") if name.startswith("Gemma")}
    assert told == {alert["alert"] for alert in alerts()}


def test_chart_takes_rules_and_dashboards_as_they_are() -> None:
    objects = helm_template("gateway", LEAST | {k: {"enabled": True} for k in ("prometheusRule", "dashboards")})
    written = [yaml.safe_load(path.read_text()) for path in RULES]
    assert [found["spec"] for found in of_kind(objects, "PrometheusRule")] == written
    shown = [data for found in of_kind(objects, "ConfigMap") for data in found["data"].items()]
    assert {(path.name, path.read_text()) for path in DASHBOARDS} <= set(shown)


def test_values_of_the_chart_set_objectives_and_what_stands_before_links() -> None:
    given = {
        "enabled": True,
        "objectives": {"availability": 0.9995, "firstToken": 0.9},
        "runbookPrefix": "https://git.example.com/blob/main/",
        "grafanaUrl": "https://grafana.example.com/",
    }
    objects = of_kind(helm_template("gateway", LEAST | {"prometheusRule": given}), "PrometheusRule")
    found = [rule for each in objects for group in each["spec"]["groups"] for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in found if "record" in rule}
    links = {rule["alert"]: rule["annotations"] for rule in found if "alert" in rule}

    assert recorded["gemma:availability_objective"] == "vector(0.9995)"
    assert recorded["gemma:first_token_objective"] == "vector(0.9)"
    for alert in alerts():
        said = alert["annotations"]
        assert links[alert["alert"]]["runbook_url"] == f"https://git.example.com/blob/main/{said['runbook_url']}"
        assert links[alert["alert"]]["dashboard_url"] == f"https://grafana.example.com{said['dashboard_url']}"


def test_configuration_for_one_machine_is_good() -> None:
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", ROOT / "deploy" / "prometheus" / "prometheus.yml")
