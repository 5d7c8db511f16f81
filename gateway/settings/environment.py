"""The environment of this process: which variables are settings, and what libraries and children read there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

#: What the names of the variables begin with that are settings, and what stands between the keys in them.
PREFIX, DELIMITER = "GEMMA_GATEWAY_", "__"


def set_environment_defaults(defaults: Mapping[str, str]) -> None:
    """Sets environment variables that are not set yet, for libraries that read nothing else (vLLM)."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def add_to_environment_list(name: str, item: str) -> None:
    """Adds an item to a comma-separated environment variable, where that is set and lacks it."""
    items = os.environ.get(name, "").split(",")
    if name in os.environ and item not in items:
        os.environ[name] = ",".join([*filter(None, items), item])


def environment() -> dict[str, str]:
    """A copy of the environment, for child processes."""
    return dict(os.environ)


def variable_of(place: Sequence[int | str]) -> str | None:
    """The variable that sets the key at `place`, or what it is in (as JSON); None: none does."""
    names = {name.upper(): name for name in os.environ}
    keys = [str(part).upper() for part in place]
    wanted = (PREFIX + DELIMITER.join(keys[:length]) for length in range(len(keys), 0, -1))
    return next((names[name] for name in wanted if name in names), None)


def holds(tree: object, place: Sequence[int | str]) -> bool:
    """Whether something stands at `place` in the tree that variables or flags make."""
    for part in place:
        if isinstance(tree, list):
            # Lists are not merged: what stands in one came with it.
            return True
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return bool(place)
