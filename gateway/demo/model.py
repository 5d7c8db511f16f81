"""Makes a small Gemma with random weights: a complete model directory that vLLM and transformers load."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from gateway.demo import tokenizer
from gateway.demo.configurations import Shape, configuration, processor
from gateway.errors import ConfigurationError
from gateway.settings import Family

__all__ = ["Shape", "write_model"]

#: Raised whenever the same arguments give other files, so that old directories are written anew.
VERSION = 1
#: Says what a directory holds. It is written before the directory gets its name: where it is, all is there.
MARKER = "demo.json"


@dataclass(frozen=True)
class Recipe:
    """All that decides the content of a model directory."""

    family: Family
    shape: Shape
    seed: int
    version: int = VERSION

    def text(self) -> str:
        """What the marker file of such a directory says."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def write_model(directory: Path, family: Family = Family.GEMMA4, shape: Shape = Shape.E, seed: int = 0) -> None:
    """Writes a small Gemma to `directory`: at once whole, or not at all.

    A few MB (Gemma 3n 1.2 GB, for its vision tower), context 8192 tokens; the same arguments give the same files.
    Does nothing, and imports neither torch nor transformers, if `directory` holds that model already. An older small
    Gemma is replaced. Raises ConfigurationError if something else is there, or for a shape that the family has not.
    """
    if family is not Family.GEMMA4 and shape is not Shape.E:
        raise ConfigurationError(f"only {Family.GEMMA4} has shapes: leave out --shape {shape}, or use --family gemma4")
    recipe = Recipe(family, shape, seed)
    if _holds(directory, recipe):
        return
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _fill(fresh, recipe)
        fresh.chmod(0o755)
        _put_in_place(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _holds(directory: Path, recipe: Recipe) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return (directory / MARKER).read_text() == recipe.text()
    return False


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / MARKER).exists()):
        raise ConfigurationError(f"{directory} exists and is not a small Gemma: remove it, or name another directory")


def _fill(directory: Path, recipe: Recipe) -> None:
    words = tokenizer.build(recipe.family)
    words.write(directory)
    (directory / "processor_config.json").write_text(json.dumps(processor(recipe.family), indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(chat_template(recipe.family, recipe.shape))
    _write_weights(directory, recipe, words)
    (directory / MARKER).write_text(recipe.text())


def _write_weights(directory: Path, recipe: Recipe, words: tokenizer.Tokenizer) -> None:
    from gateway.engine import compat

    compat.platform()  # before transformers is imported: see there
    from gateway.demo import weights

    shape = configuration(recipe.family, recipe.shape, words)
    weights.write(directory, recipe.family, shape, words, recipe.seed)
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner alone; the engine may run as another user


def _put_in_place(fresh: Path, directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    fresh.rename(directory)


def chat_template(family: Family, shape: Shape) -> str:
    """The Jinja template of a family, after the few values in which its members differ."""
    name = "gemma4.jinja" if family is Family.GEMMA4 else "gemma3.jinja"
    template = (files("gateway.demo") / "templates" / name).read_text()
    values = _template_values(family, shape)
    return "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in values.items()) + template


def _template_values(family: Family, shape: Shape) -> dict[str, str | bool]:
    match family:
        case Family.GEMMA3:
            return {"image_marker": "<start_of_image>", "audio_marker": ""}
        case Family.GEMMA3N:
            return {"image_marker": "<image_soft_token>", "audio_marker": "<audio_soft_token>"}
        case Family.GEMMA4:
            # With thinking off the large ones are given an empty thought, the E ones nothing.
            return {"closes_thought": shape is not Shape.E}
