"""Small Gemmas for the tests of this directory, each written once."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.demo.model import Shape, write_model
from gateway.settings import Family
from tests.demo.loading import SmallGemma

#: They need the engine's packages to be looked at even.
collect_ignore = [] if find_spec("torch") else ["test_training.py", "test_lessons_encoding.py"]


@pytest.fixture(scope="session")
def small_gemma(tmp_path_factory: pytest.TempPathFactory) -> SmallGemma:
    """Gives the directory of a small Gemma by family and shape."""

    @cache
    def write(family: Family, shape: Shape) -> Path:
        directory = tmp_path_factory.mktemp("models") / f"{family}-{shape}"
        write_model(directory, family, shape)
        return directory

    return write
