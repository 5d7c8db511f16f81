"""Where a training stands on disk: to go on from, and to serve. Imports torch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from gateway.demo import trained
from gateway.demo.dense import Heads
from gateway.demo.optimizers import Optimizers
from gateway.demo.tokenizer import Tokenizer
from gateway.engine import compat
from gateway.errors import ConfigurationError

#: The model as transformers and vLLM load it, within the directory of a training.
SERVED = "model"
STATE = "training.pt"
#: Of the file: raised whenever heads or optimizers are others, which cannot go on from what was saved.
VERSION = 3
#: What the first scale of each normalised addition to the stream is: all of them together then double it, not more.
ADDED = 0.4
STOPS = ("<eos>", "<turn|>", "<|tool_response>")


@dataclass(frozen=True)
class Standing:
    """How far a training is."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    """Spent in training, all runs together."""

    def after(self, examples: int, seconds: float) -> Standing:
        """The standing one step later."""
        return replace(self, step=self.step + 1, examples=self.examples + examples, seconds=self.seconds + seconds)


@dataclass(frozen=True)
class Training:
    """All that changes while training."""

    model: Any
    heads: Heads
    optimizer: Optimizers
    standing: Standing

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.heads.parameters())).device


def begin(directory: Path, seed: int, weight_decay: float, device: torch.device, first: Path | None = None) -> Training:
    """On `device`, what `directory` holds of an earlier run, or a new training: of the model in the directory `first`,
    with its heads if that is another training's, or of a model with weights drawn from `seed`.

    Raises ConfigurationError if what there is was saved by another version.
    """
    compat.platform()  # before transformers is imported: see there
    words = trained.write_frame(directory / SERVED)
    torch.manual_seed(seed)
    config = transformers.Gemma4Config(**trained.configuration(words))
    config.save_pretrained(directory / SERVED)
    model = transformers.Gemma4ForConditionalGeneration(config)
    _draw(model)
    _stop_at(model, words)
    model.model.vision_tower.pooler.register_forward_pre_hook(_from_the_corner, with_kwargs=True)
    heads = Heads(config.text_config.hidden_size).to(device)
    model.to(device).train()
    optimizer = Optimizers(model, heads, weight_decay)
    path = directory / STATE
    if not path.exists():
        if first is not None and (first / STATE).exists():
            _load(first, model, heads)
        elif first is not None:
            model.load_state_dict(type(model).from_pretrained(first, dtype=torch.float32).state_dict())
        return Training(model, heads, optimizer, Standing())
    state = _load(directory, model, heads)
    optimizer.load_state_dict(state["optimizer"])
    return Training(model, heads, optimizer, Standing(**state["standing"]))


def _load(directory: Path, model: Any, heads: Heads) -> dict[str, Any]:
    """Puts what a training has saved into `model` and `heads`; all of it."""
    path = directory / STATE
    state: dict[str, Any] = torch.load(path, map_location=next(heads.parameters()).device, weights_only=True)
    if state.get("version") != VERSION:
        raise ConfigurationError(
            f"{path} was saved by another version of the training, which this one cannot go on with: name another "
            f"directory, and begin with its model by --first {directory / SERVED}"
        )
    model.load_state_dict(state["model"])
    heads.load_state_dict(state["heads"])
    return state


def save(directory: Path, training: Training) -> None:
    """Writes what a run goes on from, and the model in bfloat16: each whole or not at all."""
    state = {
        "version": VERSION,
        "model": training.model.state_dict(),
        "heads": training.heads.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "standing": asdict(training.standing),
    }
    torch.save(state, directory / f"{STATE}.new")
    (directory / f"{STATE}.new").replace(directory / STATE)
    export(directory / SERVED, training.model)


def export(directory: Path, model: Any) -> None:
    """Writes config.json, generation_config.json and model.safetensors in bfloat16, without the heads."""
    transformers.utils.logging.disable_progress_bar()
    deepcopy(model).to(torch.bfloat16).save_pretrained(directory)
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner alone


def _from_the_corner(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """What the pooler is given: it counts its squares from the corner, of a piece of a larger picture as well."""
    places = named["pixel_position_ids"]
    return arguments, named | {"pixel_position_ids": places - places.amin(dim=1, keepdim=True)}


def _draw(model: Any) -> None:
    """Weights with which each layer keeps the scale of what it gets.

    Gemma 4 does not divide attention's logits by the root of the head's width: a trained model has the scale in the
    queries' norm, and a new one that has not attends to one chance token.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position_embedding_table" in name:
                weight.normal_(0, 0.3)
            elif weight.dim() >= 2 and "conv" not in name.rsplit(".", 2)[-2]:
                weight.normal_(0, weight.shape[-1] ** -0.5)
            elif "q_norm" in name:
                weight.fill_(len(weight) ** -0.5)
            elif _added(name):
                weight.fill_(ADDED)


def _added(name: str) -> bool:
    return "audio_tower" not in name and ".post_" in name


def _stop_at(model: Any, words: Tokenizer) -> None:
    """Without a request's own sampling the likeliest token is taken: the answers are facts."""
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=words.vocabulary["<bos>"],
        eos_token_id=[words.vocabulary[token] for token in STOPS],
        pad_token_id=words.vocabulary["<pad>"],
        do_sample=True,
        top_k=1,
    )
