"""The environment of this process, for libraries and children that read nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping


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
