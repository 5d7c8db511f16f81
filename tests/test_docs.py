"""The documentation tells the truth about the code."""

from __future__ import annotations

import re
from pathlib import Path

from gateway import reference

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
