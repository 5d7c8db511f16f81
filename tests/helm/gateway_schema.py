"""Writes what the gateway chart's values.schema.json says about `config`, from the gateway's own settings.

    python -m tests.helm.gateway_schema

Everything else in that file is written by hand, and stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from gateway.settings import Settings
from tests.helm.rendering import CHARTS

PATH = CHARTS / "gateway" / "values.schema.json"

#: Titles repeat the keys, and defaults are the gateway's to fill in. Networks and paths are formats of no JSON Schema.
_LEFT_OUT = frozenset({"title", "default"})
_FOREIGN_FORMATS = frozenset({"path", "ipv4network", "ipv6network"})


def renewed(document: dict[str, Any]) -> dict[str, Any]:
    """The schema of all values, with `config` as the settings are now."""
    section = cast("dict[str, Any]", _pruned(Settings.model_json_schema()))
    definitions = section.pop("$defs")
    return {**document, "properties": {**document["properties"], "config": section}, "$defs": definitions}


def text(document: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(path: Path = PATH) -> None:
    """Replaces the file."""
    path.write_text(text(renewed(json.loads(path.read_text()))))


def _pruned(schema: object, *, names: bool = False) -> object:
    """A schema without what only makes it longer. `names`: the mapping's keys are not JSON Schema's, but names."""
    if isinstance(schema, list):
        return [_pruned(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _pruned(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or not (key in _LEFT_OUT or (key == "format" and value in _FOREIGN_FORMATS))
    }


if __name__ == "__main__":
    write()
