"""Where a small Gemma is written, and where not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo.model import MARKER, Recipe, Shape, write_model
from gateway.errors import ConfigurationError
from gateway.settings import Family


def test_a_model_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(Recipe(Family.GEMMA4, Shape.E, 0).text())
    write_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_a_directory_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="remove it, or name another directory"):
        write_model(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(ConfigurationError, match="is not a small Gemma"):
        write_model(tmp_path / "model")


@pytest.mark.parametrize("family", [Family.GEMMA3, Family.GEMMA3N])
def test_only_gemma_4_has_shapes(family: Family, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--family gemma4"):
        write_model(tmp_path / "model", family, Shape.DENSE)


def test_importing_the_maker_imports_neither_torch_nor_transformers() -> None:
    check = "import sys, gateway.demo.model; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.engine
def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.engine
def test_another_seed_gives_other_weights_only(tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", seed=1)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {name for name in one if one[name] != two[name]} == {"model.safetensors", MARKER}


@pytest.mark.engine
def test_an_older_small_gemma_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / MARKER).write_text("{}")
    (directory / "stale.bin").write_text("")
    write_model(directory)
    assert not (directory / "stale.bin").exists()
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.engine
def test_the_default_model_is_under_ten_megabytes_and_readable_by_all(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    files = list((tmp_path / "model").iterdir())
    assert sum(path.stat().st_size for path in files) < 10e6
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
