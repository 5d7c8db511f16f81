"""Draws the weights of a small Gemma and saves them as the released files are laid out. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from gateway.demo.configurations import SPREAD
from gateway.demo.tokenizer import Tokenizer
from gateway.settings import Family

#: Ends of a text and of a turn and, for Gemma 4, the point where a tool has to answer.
STOPS: Mapping[Family, tuple[str, ...]] = {
    Family.GEMMA3: ("<eos>", "<end_of_turn>"),
    Family.GEMMA3N: ("<eos>", "<end_of_turn>"),
    Family.GEMMA4: ("<eos>", "<turn|>", "<|tool_response>"),
}
CLASSES = {Family.GEMMA3: "Gemma3", Family.GEMMA3N: "Gemma3n", Family.GEMMA4: "Gemma4"}

#: Added to the scale (1 at first) of what each block adds to the stream. Without it the token that went in prevails,
#: and a random model says one word for ever.
LOUDER = 2.0
EMBEDDING_SPREAD = 0.2
POSITION_SPREAD = 0.5
#: What the embedding of an id that is no text is multiplied by. The output shares the embedding, so such ids get a
#: logit near 0 and a random model speaks readable text, never ends by chance and never says half a character.
SILENT = 0.01


def write(directory: Path, family: Family, configuration: Mapping[str, Any], tokenizer: Tokenizer, seed: int) -> None:
    """Writes config.json, generation_config.json and model.safetensors, float32."""
    model = _model(family, configuration, seed)
    _draw(model, seed)
    _silence(model, tokenizer)
    _generation(model, family, tokenizer)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(directory)
    if family is Family.GEMMA3:
        _rename_vision_tower(directory / "model.safetensors")


def _model(family: Family, configuration: Mapping[str, Any], seed: int) -> Any:
    config = getattr(transformers, f"{CLASSES[family]}Config")(**configuration)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the vision tower of Gemma 3n draws itself
        return getattr(transformers, f"{CLASSES[family]}ForConditionalGeneration")(config).to(torch.float32)


def _draw(model: Any, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "vision_tower.timm" not in name:
                weight.normal_(0, _spread(name), generator=source)
            if "language_model" in name and ".post_" in name and weight.dim() == 1:
                weight += LOUDER
        for name, buffer in model.named_buffers():
            if name.endswith("std_bias"):
                buffer.normal_(0, 0.1, generator=source)
            if name.endswith("std_scale"):
                buffer.uniform_(0.8, 1.2, generator=source)


def _spread(name: str) -> float:
    if "embed_tokens" in name:
        return EMBEDDING_SPREAD
    return POSITION_SPREAD if "position" in name else SPREAD


def _silence(model: Any, tokenizer: Tokenizer) -> None:
    embedding = model.get_input_embeddings().weight
    silent = sorted(set(range(len(embedding))) - tokenizer.audible)
    with torch.no_grad():
        embedding[silent] *= SILENT


def _generation(model: Any, family: Family, tokenizer: Tokenizer) -> None:
    """Sampling as the released models recommend it: temperature 1, top-p 0.95, top-k 64."""
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.vocabulary["<bos>"],
        eos_token_id=[tokenizer.vocabulary[token] for token in STOPS[family]],
        pad_token_id=tokenizer.vocabulary["<pad>"],
        do_sample=True,
        temperature=1.0,
        top_k=64,
        top_p=0.95,
    )


def _rename_vision_tower(path: Path) -> None:
    """Puts back the `vision_model` of the released names, which transformers 5 drops and vLLM needs."""
    weights = load_file(path)
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model.", 1): weights[name] for name in weights}
    save_file(renamed, path, metadata={"format": "pt"})
