"""The architecture of the demonstration model, and all files of its directory but the weights.

Gemma 4 as E2B and E4B are: embeddings per layer, upper layers that share keys and values, a vision and an audio tower.
The towers are small because they run over nine patches per token and are most of the cost.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gateway.demo import vocabulary
from gateway.demo.chat import chat_template
from gateway.demo.configurations import CONTEXT, Shape
from gateway.demo.tokenizer import Tokenizer
from gateway.settings import Family

#: Tokens of a picture unless a request says otherwise. Less than the 280 of the released models: a quarter of the time.
DEFAULT_BUDGET = 70
#: Patches along the longest side that there can be: a strip of 1120 tokens.
LONGEST_SIDE = 3 * 1120
#: Where the package keeps what a training made, and which files of its model those are; all others are code.
PRETRAINED = "pretrained"
LEARNT = ("config.json", "generation_config.json", "model.safetensors")
LAYER_KINDS = ["sliding_attention", "sliding_attention", "full_attention"] * 2


def write_frame(directory: Path) -> Tokenizer:
    """Writes tokenizer, processor and chat template to `directory`, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    words = vocabulary.write(directory)
    (directory / "processor_config.json").write_text(json.dumps(processor(), indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(chat_template(Family.GEMMA4, Shape.E))
    return words


def weights_are_here() -> bool:
    """Whether this package comes with trained weights."""
    return all(_learnt(name).is_file() for name in LEARNT)


def fingerprint() -> str:
    """Tells the weights of one training from those of another. Raises FileNotFoundError if there are none."""
    digest = hashlib.sha256()
    for name in LEARNT:
        digest.update(_learnt(name).read_bytes())
    return digest.hexdigest()


def write_trained(directory: Path) -> None:
    """Writes the whole model to `directory`, with the weights of this package; imports neither torch nor transformers.

    Raises FileNotFoundError if it comes without them.
    """
    write_frame(directory)
    for name in LEARNT:
        (directory / name).write_bytes(_learnt(name).read_bytes())


def _learnt(name: str) -> Traversable:
    return files("gateway.demo") / PRETRAINED / name


def processor() -> dict[str, Any]:
    """The content of processor_config.json."""
    return {
        "processor_class": "Gemma4Processor",
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": DEFAULT_BUDGET},
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
    }


def configuration(words: Tokenizer) -> dict[str, Any]:
    """The configuration, as transformers takes it."""
    return {
        "text_config": _text(words.size),
        "vision_config": _vision(),
        "audio_config": _audio(),
        "boi_token_id": words.media_id("boi_token"),
        "eoi_token_id": words.media_id("eoi_token"),
        "image_token_id": words.media_id("image_token"),
        "boa_token_id": words.media_id("boa_token"),
        "eoa_token_index": words.media_id("eoa_token"),
        "audio_token_id": words.media_id("audio_token"),
        "video_token_id": words.media_id("video_token"),
    }


def _text(vocabulary_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary_size,
        "vocab_size_per_layer_input": vocabulary_size,
        "hidden_size": 160,
        "hidden_size_per_layer_input": 16,
        "intermediate_size": 448,
        "num_hidden_layers": len(LAYER_KINDS),
        "layer_types": LAYER_KINDS,
        "num_kv_shared_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "global_head_dim": 64,
        "sliding_window": 512,
        "max_position_embeddings": CONTEXT,
        "final_logit_softcapping": 30.0,
    }


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": 96,
        "intermediate_size": 288,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "position_embedding_size": LONGEST_SIDE,
        # vLLM reads it from the file.
        "default_output_length": DEFAULT_BUDGET,
    }


def _audio() -> dict[str, Any]:
    return {
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "output_proj_dims": 96,
        # The convolutions leave 32 mel bins, and the projection after them expects channels[0] / 4 of them.
        "subsampling_conv_channels": [128, 8],
    }
