"""Reads the YAML of a configuration file: keys are text as it is written, and none stands twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.errors import ConfigurationError

# libyaml's where PyYAML was built with it: some ten times as fast.
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TEXT = "tag:yaml.org,2002:str"
_DATE = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"

#: What PyYAML raises, beside its own errors, for values that their tag does not fit, such as `!!int abc`.
_ODD_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read(path: Path) -> dict[str, Any]:
    """The document; empty where nothing stands in the file.

    Raises ConfigurationError where it cannot be read, or is no mapping in YAML and UTF-8, or has a key twice.
    """
    try:
        document = _parse(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        line = fault.object.count(b"\n", 0, fault.start) + 1
        raise ConfigurationError(
            f"cannot read configuration {path}: it is not UTF-8 (line {line}); save it as UTF-8"
        ) from fault
    except (OSError, ValueError) as fault:
        raise ConfigurationError(f"cannot read configuration {path}: {fault}") from fault
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"configuration {path} must be a mapping, not {type(document).__name__}")
    return document


def _parse(text: str) -> object:
    """What stands in the text. Raises ValueError with the fault and its line."""
    loader = None
    try:
        loader = _LOADER(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _settle(root)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as fault:
        raise ValueError(_told(fault)) from fault
    except yaml.reader.ReaderError as fault:
        raise ValueError(f"{fault.reason} (line {text.count(chr(10), 0, fault.position) + 1})") from fault
    except RecursionError:
        raise ValueError("it is too deeply nested") from None
    except _RepeatedKeyError:
        raise
    except _ODD_VALUES as fault:
        raise ValueError(f"a value is not what its tag says ({fault})") from fault
    finally:
        if loader is not None:
            loader.dispose()


class _RepeatedKeyError(ValueError):
    """A key that stands twice, of which the second would silently undo the first."""


def _settle(root: Node) -> None:
    """Refuses repeated keys, and makes text of keys such as `yes` and `5` and of dates, for the tree to judge."""
    seen, waiting = set[int](), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            _settle_keys(node)
        elif isinstance(node, ScalarNode) and node.tag == _DATE:
            node.tag = _TEXT
        waiting += reversed(list(_below(node)))


def _below(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, SequenceNode):
        yield from node.value


def _settle_keys(node: MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        # What `<<` brings in is meant to be overridden.
        if not isinstance(key, ScalarNode) or key.tag == _MERGE:
            continue
        key.tag = _TEXT
        line = key.start_mark.line + 1
        if (first := lines.get(key.value)) is not None:
            raise _RepeatedKeyError(
                f"'{key.value}' stands twice in one mapping, in line {first} and in line {line}; remove one of the two"
            )
        lines[key.value] = line


def _told(fault: yaml.MarkedYAMLError) -> str:
    """The problem and its place, without PyYAML's excerpt of the file: a password may stand there."""
    mark = fault.problem_mark or fault.context_mark
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
    return ", ".join(filter(None, (fault.context, fault.problem))) + place
