"""The guides as they stand: their blocks of code by language."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GUIDES = ROOT / "docs" / "guides"
CLIENTS = ROOT / "deploy" / "examples" / "clients"


def text(guide: str) -> str:
    """A guide by its name without `.md`."""
    return (GUIDES / f"{guide}.md").read_text()


def blocks(guide: str, language: str) -> list[str]:
    """The blocks of one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(guide), re.MULTILINE | re.DOTALL)


def program(guide: str) -> str:
    """The guide's Python as one program, without what starts a stack of its own (the README's test does that)."""
    return "\n".join(block for block in blocks(guide, "python") if "gateway.launch" not in block)
