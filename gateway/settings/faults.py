"""Says in an operator's words what pydantic finds wrong with a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_LISTS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_MAPPINGS = frozenset({"dict_type", "mapping_type", "model_type", "model_attributes_type"})
_DATES = frozenset({"date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"})
_WORDS = {
    "missing": "is missing; add it",
    "too_short": "must have at least one item",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "path_type": "must be a path",
    "recursion_loop": "must not hold itself",
}

#: Keys, and numbers in lists, from the root down.
Place = tuple[int | str, ...]


class Fault(NamedTuple):
    """One fault. `place` is empty where the message names its keys itself."""

    place: Place
    message: str


def faults(error: ValidationError, tree: type[BaseModel]) -> list[Fault]:
    """The faults of `error`, which validating a `tree` has raised, in the order of the sections."""
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]
    return [fault for detail in details if not _follows(detail, places) for fault in _faults(detail, tree)]


def _follows(detail: ErrorDetails, places: Sequence[Place]) -> bool:
    """Whether a list is too short only because its items are faulty."""
    place = detail["loc"]
    within = (other for other in places if len(other) > len(place) and other[: len(place)] == place)
    return detail["type"] == "too_short" and any(within)


def _faults(detail: ErrorDetails, tree: type[BaseModel]) -> Iterator[Fault]:
    place = detail["loc"]
    if place and place[-1] == "[key]":
        yield Fault(place[:-1], f"a name must be text; write it in quotes, '{place[-2]}'")
    elif place:
        yield Fault(place, _message(detail, tree))
    else:
        # Ours, of faults across sections: each line names its key.
        yield from (Fault((), line) for line in _message(detail, tree).splitlines())


def _message(detail: ErrorDetails, tree: type[BaseModel]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "extra_forbidden":
        return _no_such_key(detail["loc"], tree)
    if kind in _LISTS:
        return _no_list(value)
    if kind in _MAPPINGS:
        return "must be a mapping of keys to values" + ("; write {} for none" if value is None else "")
    if kind in _DATES:
        return "must be a date of the calendar, such as 2026-01-31"
    if kind == "string_type":
        return "must be text" + ("; write it in quotes" if isinstance(value, int | float) else "")
    return _WORDS.get(kind) or detail["msg"].replace("Input should be", "must be", 1)


def _no_list(value: object) -> str:
    example = value if isinstance(value, str) and value.isprintable() and len(value) < 60 else "a, b"
    return "must be a list; write [] for none" if value is None else f"must be a list, such as [{example}]"


def _no_such_key(place: Place, tree: type[BaseModel]) -> str:
    section = _kind(tree, place[:-1])
    known = list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
    meant = get_close_matches(str(place[-1]), known, 1)
    if meant:
        return f"no such key; did you mean `{meant[0]}`?"
    return f"no such key; there are: {', '.join(known)}" if known else "no such key"


def _kind(kind: Any, place: Place) -> object:
    """The type of what stands at `place` in a value of type `kind`; None where that cannot be told."""
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _present(field.annotation) if field is not None else None
        else:
            # A mapping's values, a list's items.
            arguments = get_args(kind)
            kind = arguments[1 if get_origin(kind) is Mapping else 0] if arguments else None
    return kind


def _present(kind: Any) -> Any:
    """The type itself of something that may be left out."""
    arguments = get_args(kind)
    return next(each for each in arguments if each is not NoneType) if NoneType in arguments else kind
