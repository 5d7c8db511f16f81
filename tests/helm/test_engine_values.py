"""values.yaml of the engine chart is its manual, and the schema knows the same keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.helm.rendering import CHARTS

CHART = CHARTS / "engine"
TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

#: Said by what stands above the keys around them.
UNDERSTOOD = {"enabled", "requests", "limits"}


def keys(tree: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The keys of the values that the schema spells out."""
    for key, value in tree.items():
        yield f"{path}{key}"
        inner = schema.get("properties", {}).get(key, {})
        if isinstance(value, dict) and "properties" in inner:
            yield from keys(value, inner, f"{path}{key}.")


def schema_keys(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, inner in schema.get("properties", {}).items():
        yield f"{path}{key}"
        yield from schema_keys(inner, f"{path}{key}.")


def test_schema_and_values_have_the_same_keys() -> None:
    known = set(schema_keys(SCHEMA)) - {"global"}
    # Left out by default, because they go together with a choice.
    optional = {"strategy.type", "strategy.rollingUpdate"}
    optional |= {f"strategy.rollingUpdate.{key}" for key in ("maxSurge", "maxUnavailable")}
    assert set(keys(VALUES, SCHEMA)) == known - optional


def test_schema_is_closed_at_every_level() -> None:
    def closed(schema: Mapping[str, Any]) -> bool:
        inner = schema.get("properties", {})
        return not inner or (schema["additionalProperties"] is False and all(map(closed, inner.values())))

    assert closed(SCHEMA)


def test_a_sentence_stands_above_every_key() -> None:
    lines = TEXT.splitlines()
    above = {path: lines[line - 1].strip() for path, line in places(yaml.compose(TEXT))}
    spelled_out = [path for path in keys(VALUES, SCHEMA) if path.rpartition(".")[2] not in UNDERSTOOD]
    assert [path for path in spelled_out if not above[path].startswith("#")] == []


def places(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Every key with its line, from 0."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{path}{key.value}", key.start_mark.line
            yield from places(value, f"{path}{key.value}.")
