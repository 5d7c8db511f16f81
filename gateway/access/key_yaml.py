"""Reads and writes the YAML of key files: mappings, lists and text.

It stands on PyYAML's events, for three reasons. PyYAML's own tree of nodes takes seconds for ten thousand keys, most of
them spent in garbage collections that would hold up the gateway. It lets a field that is given twice pass, so that a
second `models` would silently undo the first. And it takes an id that happens to be all digits for a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

# libyaml's where PyYAML was built with it: some ten times as fast.
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: type[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class FaultyYamlError(ValueError):
    """The text is no YAML, or YAML that a key file does not need. Says where; never repeats values."""


def load(text: bytes) -> object:
    """The document: mappings, lists, text, and None where nothing stands. Numbers and dates are text still.

    Anchors, aliases and merge keys (`<<`) work. Raises FaultyYamlError.
    """
    try:
        return _document(yaml.parse(text, _LOADER))
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        # The problem alone: PyYAML's message shows the line, and somebody may have pasted a key there.
        raise FaultyYamlError(f"{getattr(fault, 'problem', None) or 'no text'}{_place(mark)}") from None
    except RecursionError:
        raise FaultyYamlError("too deeply nested") from None


def dump(records: Iterable[Mapping[str, object]]) -> str:
    """A document `keys:` with those records."""
    # One at a time: each is a tree of nodes while it is written.
    written = [yaml.dump([record], Dumper=_DUMPER, sort_keys=False, allow_unicode=True) for record in records]
    return "".join(["keys:\n", *written]) if written else "keys: []\n"


def _document(events: Iterator[Event]) -> object:
    documents: list[object] = []
    for event in events:
        if isinstance(event, DocumentStartEvent):
            if documents:
                raise FaultyYamlError(f"a second document{_place(event.start_mark)}")
            documents.append(_Builder(events).value(next(events)))
    return documents[0] if documents else None


class _Builder:
    """Makes values of events."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, object] = {}

    def value(self, event: Event) -> object:
        """The value that begins with that event, of which the others are taken from the stream."""
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise FaultyYamlError(f"an alias within its own anchor{_place(event.start_mark)}")
            return self._anchors[event.anchor]
        value = self._content(event)
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _content(self, event: Event) -> object:
        if isinstance(event, ScalarEvent):
            plain = event.implicit[0]
            return None if plain and event.value in _NULLS else event.value
        if isinstance(event, MappingStartEvent):
            return self._mapping()
        if isinstance(event, SequenceStartEvent):
            return self._sequence()
        raise FaultyYamlError(f"something unexpected{_place(event.start_mark)}")

    def _sequence(self) -> list[object]:
        values = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            values.append(self.value(event))
        return values

    def _mapping(self) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self.value(event)
            if not isinstance(key, str):
                raise FaultyYamlError(f"a key that is no text{_place(event.start_mark)}")
            if key in own:
                raise FaultyYamlError(f"a key of a mapping that stands in it twice{_place(event.start_mark)}")
            value = self.value(next(self._events))
            if key == "<<" and isinstance(event, ScalarEvent) and event.implicit[0]:
                merged = _merged(value, event) | merged
            else:
                own[key] = value
        return merged | own


def _merged(value: object, event: Event) -> dict[str, object]:
    """What `<<` brings in: one mapping, or a list of them of which the first wins."""
    result: dict[str, object] = {}
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            raise FaultyYamlError(f"'<<' with something else than a mapping{_place(event.start_mark)}")
        result = each | result
    return result


def _place(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
