"""Makes a small Gemma, with random or trained weights: a complete model directory that vLLM and transformers load."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.demo import tokenizer, trained
from gateway.demo.chat import chat_template
from gateway.demo.configurations import Shape, configuration, processor
from gateway.errors import ConfigurationError
from gateway.settings import Family

__all__ = ["Shape", "write_model"]

#: Raised whenever the same arguments give other files, so that old directories are written anew.
VERSION = 2
#: Says what a directory holds. It is written before the directory gets its name: where it is, all is there.
MARKER = "demo.json"


@dataclass(frozen=True)
class Recipe:
    """All that decides the content of a model directory."""

    family: Family
    shape: Shape
    seed: int
    trained: str = ""
    """The fingerprint of trained weights; empty for random ones."""
    version: int = VERSION

    def text(self) -> str:
        """What the marker file of such a directory says."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def write_model(
    directory: Path, family: Family = Family.GEMMA4, shape: Shape = Shape.E, seed: int = 0, *, trained: bool = False
) -> None:
    """Writes a small Gemma to `directory`: at once whole, or not at all.

    A few MB (Gemma 3n 1.2 GB, for its vision tower), context 8192 tokens; the same arguments give the same files.
    `trained`: with the weights of this package, which are those of a Gemma 4 of shape E, instead of random ones drawn
    from `seed`; neither torch nor transformers is imported for it. Does nothing, and imports neither, if `directory`
    holds that model already. An older small Gemma is replaced. Raises ConfigurationError if something else is there,
    for a shape that the family has not, and for trained weights that there are not.
    """
    recipe = _trained_recipe(family, shape) if trained else _random_recipe(family, shape, seed)
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


def _random_recipe(family: Family, shape: Shape, seed: int) -> Recipe:
    if family is not Family.GEMMA4 and shape is not Shape.E:
        raise ConfigurationError(f"only {Family.GEMMA4} has shapes: leave out --shape {shape}, or use --family gemma4")
    return Recipe(family, shape, seed)


def _trained_recipe(family: Family, shape: Shape) -> Recipe:
    if (family, shape) != (Family.GEMMA4, Shape.E):
        raise ConfigurationError(
            f"only the small {Family.GEMMA4} of shape {Shape.E} was trained, no {family} of shape {shape}: "
            "use --untrained, or leave out --family and --shape"
        )
    if not trained.weights_are_here():
        raise ConfigurationError(
            "this package comes without trained weights: use --untrained, or train the model first:  "
            "make demo-model-training"
        )
    return Recipe(family, shape, seed=0, trained=trained.fingerprint())


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
    if recipe.trained:
        trained.write_trained(directory)
    else:
        _fill_random(directory, recipe)
    (directory / MARKER).write_text(recipe.text())
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner alone; the engine may run as another user


def _fill_random(directory: Path, recipe: Recipe) -> None:
    words = tokenizer.build(recipe.family)
    words.write(directory)
    (directory / "processor_config.json").write_text(json.dumps(processor(recipe.family), indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(chat_template(recipe.family, recipe.shape))
    _write_weights(directory, recipe, words)


def _write_weights(directory: Path, recipe: Recipe, words: tokenizer.Tokenizer) -> None:
    from gateway.engine import compat

    compat.platform()  # before transformers is imported: see there
    from gateway.demo import weights

    shape = configuration(recipe.family, recipe.shape, words)
    weights.write(directory, recipe.family, shape, words, recipe.seed)


def _put_in_place(fresh: Path, directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    fresh.rename(directory)
