"""Which preset a model gets: recognised from its config.json, else from its name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.engine.gemmas import SHAPES, KvLayers, Precision, Shape, speculative_args
from gateway.engine.gemmas import Preset as Preset
from gateway.errors import ConfigurationError
from gateway.media.budget import DEFAULT_IMAGE_BUDGET, IMAGE_BUDGETS
from gateway.settings import Family, Modality, environment

#: `model_type` in config.json, as transformers 5.19 writes it.
FAMILIES = {
    "gemma3": Family.GEMMA3,
    "gemma3_text": Family.GEMMA3,
    "gemma3n": Family.GEMMA3N,
    "gemma3n_text": Family.GEMMA3N,
    "gemma4": Family.GEMMA4,
    "gemma4_text": Family.GEMMA4,
    "gemma4_unified": Family.GEMMA4,
    "gemma4_unified_text": Family.GEMMA4,
}

#: `google/gemma-3-4b-it`, `RedHatAI/gemma-4-31B-it-FP8-dynamic`, `gemma-4-26b-a4b`.
NAME = re.compile(r"(?:^|[/_.-])(gemma-(?:3n|3|4)-(?:26b-a4b|e2b|e4b|270m|1b|4b|12b|27b|26b|31b))(?=[-_.]|$)", re.I)

#: Marks of quantised weights in the names of checkpoints: -FP8-dynamic, -NVFP4, -qat-w4a16-ct, -quantized.w8a8, -AWQ.
FOUR_BIT_NAME = re.compile(r"nvfp4|mxfp4|w4a|int4|4-?bit|awq|gptq|qat-mobile|q4_0", re.I)
EIGHT_BIT_NAME = re.compile(r"fp8|w8a|int8|8-?bit", re.I)

SUPPORTED = ", ".join(SHAPES)


#: What the hub's own programs take where no revision is named.
MAIN = "main"


def recognise(model: str, revision: str | None = None) -> Preset:
    """The preset for a model directory, or for a name on the Hugging Face hub.

    A directory's config.json decides; for a name, that of the copy in the local hub cache, if there is one of this
    `revision` (a commit, branch or tag; None: main); else the name itself. A Gemma of another size gets its family's
    preset with the limits of its config.json. Raises ConfigurationError for what is no Gemma 3, 3n or 4, and for a
    draft model.
    """
    config = _config(model, revision)
    _refuse_draft(model, config)
    return _from_config(model, config) if config else _from_name(model)


def revision_of(vllm_args: Sequence[str]) -> str | None:
    """The value of --revision among vLLM's flags; None where it is not there."""
    words = [word for argument in vllm_args for word in argument.split("=", 1)]
    values = [value for flag, value in pairwise(words) if flag == "--revision"]
    return values[-1] if values else None


def _config(model: str, revision: str | None) -> Mapping[str, Any] | None:
    directory = Path(model) if Path(model).is_dir() else cached_snapshot(model, revision)
    if directory is None:
        return None
    path = directory / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise ConfigurationError(f"{model}: cannot read {path}: {fault}. Name a whole model directory.") from fault
    if not isinstance(config, dict):
        raise ConfigurationError(f"{model}: {path} is not a JSON object. Name a whole model directory.")
    return config


def cached_snapshot(model: str, revision: str | None = None) -> Path | None:
    """The directory that the hub cache holds for this `revision` of `owner/name`, or None.

    `revision` is a commit, or a branch or tag that the cache knows the commit of; None is main. The layout is that of
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    variables = environment()
    home = Path(variables.get("HF_HOME", Path("~/.cache/huggingface"))).expanduser()
    repository = Path(variables.get("HF_HUB_CACHE", home / "hub")) / f"models--{model.replace('/', '--')}"
    snapshots = repository / "snapshots"
    # A commit is a name of the folder itself: a download of one writes no reference.
    candidates = (snapshots / (revision or MAIN), *_referred(repository / "refs" / (revision or MAIN), snapshots))
    return next((folder for folder in candidates if (folder / "config.json").is_file()), None)


def _referred(reference: Path, snapshots: Path) -> list[Path]:
    try:
        return [snapshots / reference.read_text().strip()]
    except OSError:
        return []


def draft_flags(model: str, revision: str | None = None) -> list[str]:
    """The vLLM flags that let `model` speculate with its draft. Raises ConfigurationError where it has none."""
    flags = speculative_args(recognise(model, revision))
    return [word for name, value in flags.items() for word in (f"--{name}", json.dumps(value))]


def _refuse_draft(model: str, config: Mapping[str, Any] | None) -> None:
    kind = str(config.get("model_type", "")) if config else ""
    if not (kind.endswith("_assistant") or (config is None and "-assistant" in model)):
        return
    main = model.split("-assistant")[0] if "-assistant" in model else "google/gemma-4-31B-it"
    option = json.dumps({"model": model, "num_speculative_tokens": 4})
    raise ConfigurationError(
        f"{model} is a draft for multi-token prediction and answers nothing by itself. Serve the model that it belongs "
        f"to:\n  gemma-gateway engine {main} --speculative-config '{option}'"
    )


def _from_config(model: str, config: Mapping[str, Any]) -> Preset:
    kind = str(config.get("model_type", ""))
    family = FAMILIES.get(kind)
    if family is None:
        raise ConfigurationError(
            f"{model} is not a Gemma that can be served: its config.json says model_type {kind!r}. "
            f"Supported: {SUPPORTED}, their quantised variants, and models of the same architecture."
        )
    text = config.get("text_config", config)
    name, shape = _released(family, text) or (family.value, _shape_of(family, text))
    seen = replace(shape, modalities=_modalities(family, config))
    return Preset(name, seen, _precision(model, config), _image_budget(config) if family is Family.GEMMA4 else None)


def _released(family: Family, text: Mapping[str, Any]) -> tuple[str, Shape] | None:
    size = (text.get("num_hidden_layers"), text.get("num_attention_heads"))
    known = ((name, shape) for name, shape in SHAPES.items() if shape.family is family)
    return next(((name, shape) for name, shape in known if (shape.layers, shape.attention_heads) == size), None)


def _modalities(family: Family, config: Mapping[str, Any]) -> frozenset[Modality]:
    found = {Modality.TEXT}
    if config.get("vision_config"):
        found |= {Modality.IMAGE, Modality.VIDEO} if family is Family.GEMMA4 else {Modality.IMAGE}
    if config.get("audio_config"):
        found.add(Modality.AUDIO)
    return frozenset(found)


def _image_budget(config: Mapping[str, Any]) -> int | None:
    """`default_output_length`, by which vLLM counts, if it is a budget that the gateway can tell the engine."""
    tokens = (config.get("vision_config") or {}).get("default_output_length")
    return tokens if tokens in IMAGE_BUDGETS and tokens != DEFAULT_IMAGE_BUDGET else None


def _shape_of(family: Family, text: Mapping[str, Any]) -> Shape:
    """The shape of a Gemma of unknown size. The weights are estimated, keys and values bounded from above."""
    layers, heads = int(text.get("num_hidden_layers", 0)), int(text.get("num_attention_heads", 1))
    width = int(text.get("hidden_size", 0))
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_dim = int(text.get("global_head_dim") or text.get("head_dim") or 256)
    # Twelve squares of the width for each layer, the usual estimate for a transformer, and the embeddings.
    parameters = 12 * layers * width**2 + int(text.get("vocab_size", 0)) * width
    return Shape(
        family=family,
        modalities=frozenset({Modality.TEXT}),
        parameters_b=parameters / 1e9,
        context=int(text.get("max_position_embeddings", 8192)),
        layers=layers,
        attention_heads=heads,
        sliding=KvLayers(0, kv_heads, head_dim),
        full=KvLayers(layers, kv_heads, head_dim),
        window=int(text.get("sliding_window") or 0),
    )


def _from_name(model: str) -> Preset:
    found = NAME.search(model)
    name = found and next((known for known in SHAPES if known.lower().startswith(found[1].lower())), None)
    if not name:
        raise ConfigurationError(
            f"{model} is neither a model directory nor the name of a Gemma that can be served. Supported: {SUPPORTED}, "
            "with their -it, QAT, FP8 and NVFP4 variants. A Gemma of another name is recognised once it is "
            f"downloaded:\n  hf download {model}"
        )
    return Preset(name, SHAPES[name], _precision(model, {}))


def _precision(model: str, config: Mapping[str, Any]) -> Precision:
    """From `quantization_config`, which names the bits in as many ways as there are tools; else from the name."""
    told = config.get("quantization_config")
    if told is None and config:
        return Precision.BF16
    # QAT weights are also published in full: gemma-3-12b-it-qat-q4_0-unquantized.
    marks = json.dumps(told) if told else Path(model).name.replace("q4_0-unquantized", "")
    if FOUR_BIT_NAME.search(marks) or re.search(r'bits": 4\b|in_4bit": true', marks):
        return Precision.FOUR_BIT
    eight = EIGHT_BIT_NAME.search(marks) or re.search(r'bits": 8\b', marks)
    return Precision.EIGHT_BIT if eight else Precision.BF16
