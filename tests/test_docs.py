"""The documentation tells the truth about the code."""

from __future__ import annotations

import re
from pathlib import Path

from gateway import reference
from gateway.app.inbound import HeadTooLargeError
from gateway.errors import GatewayError
from tests.test_errors import every

ROOT = Path(__file__).parent.parent


def test_configuration_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.configuration()


def test_metrics_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference.metrics()


def test_presets_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "presets.md").read_text() == reference.presets()


def test_links_between_files_of_the_project_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_error_is_described_with_its_status() -> None:
    rows = {(row[1].strip(), code) for row in table("errors.md") for code in re.findall(r"`(\w+)`|none", row[2])}
    kinds: list[type[GatewayError]] = [HeadTooLargeError, *every(GatewayError)]
    undescribed = {(str(kind.status), kind.code or "") for kind in kinds} - rows - {("403", "permission_denied")}
    assert undescribed == set()
    assert {"endpoint_not_allowed", "invalid_token", "token_not_allowed"} <= {code for _, code in rows}


def table(name: str) -> list[list[str]]:
    """The cells of a page's tables, line by line."""
    return [line.split("|") for line in (ROOT / "docs" / name).read_text().splitlines() if line.startswith("| ")]
