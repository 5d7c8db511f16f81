"""The dashboards are whole, say what they show, and ask Prometheus in a language it knows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from deploy.dashboards.__main__ import DASHBOARDS as DESCRIBED
from deploy.dashboards.grafana import render
from tests.observability.declared import DASHBOARDS, Json, dashboard, panels, queries
from tests.observability.prometheus import parse

#: Grafana's names of the units in use.
UNITS = {"short", "s", "percent", "percentunit", "reqps", "ops", "bytes", "Bps", "MBs", "celsius", "watt", "hertz"}

every = pytest.mark.parametrize(
    "document", [dashboard(path) for path in DASHBOARDS], ids=[path.stem for path in DASHBOARDS]
)


def test_committed_dashboards_are_what_their_description_says() -> None:
    written = {path.stem: path.read_text() for path in DASHBOARDS}
    assert written == {name: render(description) for name, description in DESCRIBED.items()}


def test_no_two_dashboards_are_taken_for_each_other() -> None:
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS) == 5
    assert len({dashboard(path)["title"] for path in DASHBOARDS}) == 5


@every
def test_every_panel_says_what_it_shows_and_in_which_unit(document: Json) -> None:
    assert document["schemaVersion"] == 39
    for panel in panels(document):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"].endswith((".", ")"))
        assert len(panel["title"]) > 2
        assert all(target["legendFormat"] for target in panel["targets"])
    assert all(variable["description"] for variable in document["templating"]["list"])


@every
def test_every_panel_can_be_linked_to(document: Json) -> None:
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(numbers) == len(set(numbers))
    titles = [panel["title"] for panel in panels(document)]
    assert len(titles) == len(set(titles))


@every
def test_every_query_goes_to_the_prometheus_that_is_chosen(document: Json) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert document["templating"]["list"][0]["type"] == "datasource"
    for panel in panels(document):
        assert panel["datasource"] == chosen
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])


@every
def test_panels_lie_side_by_side_on_the_grid(document: Json) -> None:
    places = sorted((p["gridPos"]["y"], p["gridPos"]["x"], p["gridPos"]["w"]) for p in document["panels"])
    assert all(x + width <= 24 for _, x, width in places)
    assert all(left[1] + left[2] <= right[1] for left, right in pairwise(places) if left[0] == right[0])


def test_every_query_of_every_panel_is_promql_and_has_all_its_variables(tmp_path: Path) -> None:
    asked = queries()
    assert len(asked) > 100
    assert [query.place for query in asked if "$" in query.expression] == []
    parse([query.expression for query in asked], tmp_path)
