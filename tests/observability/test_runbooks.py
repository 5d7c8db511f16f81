"""There is a page for each alert that tells what to do, with queries that work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.observability.declared import RUNBOOKS, Asked, alerts, expressions, queries
from tests.observability.prometheus import parse

INDEX = RUNBOOKS / "README.md"
PAGES = sorted(set(RUNBOOKS.glob("*.md")) - {INDEX})

SECTIONS = ["What it means", "How bad it is", "How to look", "How to mend it", "If it is wrongly tuned"]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def blocks(page: Path, language: str) -> list[str]:
    """What a page tells to paste."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def lines(page: Path) -> list[str]:
    """A page's queries, one in a line."""
    return [line for block in blocks(page, "promql") for line in block.splitlines() if line and line[0] != "#"]


def test_every_alert_has_a_page_and_every_page_an_alert_and_the_index_has_both() -> None:
    named = {alert["annotations"]["runbook_url"].rpartition("/")[2] for alert in alerts()}
    assert named == {page.name for page in PAGES}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", INDEX.read_text())) == named
    assert set(re.findall(r"`(Gemma\w+)`", INDEX.read_text())) == {alert["alert"] for alert in alerts()}


@each_page
def test_page_says_all_that_one_needs_at_night(page: Path) -> None:
    assert re.findall(r"(?m)^## (.*)$", page.read_text()) == SECTIONS
    assert lines(page) != []


def test_queries_of_pages_are_promql_of_series_that_there_are(tmp_path: Path) -> None:
    asked = [Asked(page.stem, line) for page in PAGES for line in lines(page)]
    parse([query.expression for query in asked], tmp_path)
    known = {name for each in [*queries(), *expressions()] for name in each.names}
    assert {name for query in asked for name in query.names} - known == set()


@pytest.mark.parametrize("page", [*PAGES, INDEX], ids=lambda path: path.stem)
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
