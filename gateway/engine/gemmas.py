"""What each Gemma needs to be served well: its shape, what it takes as input, and the vLLM flags that suit it.

Pure data. Neither torch nor vLLM nor transformers is imported, so that commands, charts and tests can read it.

Sources: the figures of Gemma 4 come from the released config.json files as public test suites quote them; those of
Gemma 3 and 3n from the released models' descriptions, to be read again in each config.json. The flags come from
https://github.com/vllm-project/recipes (August 2026) and vLLM 0.32's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from gateway.errors import ConfigurationError
from gateway.settings import Family, Modality

#: The value of a vLLM flag. A mapping is given to vLLM as JSON.
Value = str | int | float | bool | list[str] | Mapping[str, str | int]

TEXT = frozenset({Modality.TEXT})
SEES = frozenset({Modality.TEXT, Modality.IMAGE})
SEES_AND_HEARS = SEES | {Modality.AUDIO}
SEES_VIDEO = SEES | {Modality.VIDEO}
EVERYTHING = SEES_AND_HEARS | {Modality.VIDEO}

#: Tokens of context that an engine serves unless told otherwise: what fits beside the weights on the GPUs that a model
#: is usually served on. Raise it with `--max-model-len`.
SERVED_CONTEXT = 32_768


class Precision(Enum):
    """How the weights are stored: the value is bytes per parameter, with the parts that stay in bfloat16.

    As released checkpoints have it: 26B-A4B in FP8 takes 27 GB, 31B in 4 bits 20 GB, 12B in 4 bits 9 GB.
    """

    BF16 = 2.0
    EIGHT_BIT = 1.05
    FOUR_BIT = 0.7


@dataclass(frozen=True, slots=True)
class KvLayers:
    """Layers of one kind that keep keys and values; layers that share another's keep none."""

    count: int
    heads: int
    head_dim: int

    @property
    def bytes_per_token(self) -> int:
        """Bytes of bfloat16 keys and values for one token, over all these layers."""
        return self.count * self.heads * self.head_dim * 2 * 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one Gemma, as its config.json has it."""

    family: Family
    modalities: frozenset[Modality]
    parameters_b: float
    """Parameters, in billions."""
    context: int
    """Tokens that the model was made for."""
    layers: int
    attention_heads: int
    sliding: KvLayers
    full: KvLayers
    window: int
    """Tokens that a sliding layer looks back, and keeps."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One Gemma as it is to be served."""

    name: str
    """Such as `gemma-4-31B`; the family's name where the size is none of the released ones."""
    shape: Shape
    precision: Precision = Precision.BF16
    image_budget: int | None = None
    """Soft tokens for an image unless a request says otherwise, where these are not Gemma 4's 280."""

    @property
    def family(self) -> Family:
        """Its generation."""
        return self.shape.family

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it takes as input."""
        return self.shape.modalities

    @property
    def max_model_len(self) -> int:
        """Tokens of context that the engine serves by default."""
        return min(self.shape.context, SERVED_CONTEXT)

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights in memory."""
        return int(self.shape.parameters_b * 1e9 * self.precision.value)

    @property
    def is_small(self) -> bool:
        """Whether a CPU serves it at ease, in float32 and without compilation."""
        return self.shape.parameters_b < 0.5

    @property
    def draft(self) -> str | None:
        """The hub id of the draft model that Google released for it (multi-token prediction), or None."""
        return f"google/{self.name}-it-assistant" if self.name in DRAFT_TOKENS else None

    @property
    def args(self) -> Mapping[str, Value]:
        """The vLLM flags that suit it on any hardware, without their dashes."""
        return MappingProxyType(COMMON | _family_args(self.family) | _size_args(self) | _media_args(self.modalities))

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of keys and values in bfloat16 for one sequence of `tokens` tokens."""
        shape = self.shape
        return shape.full.bytes_per_token * tokens + shape.sliding.bytes_per_token * min(tokens, shape.window)


def _shape(
    family: Family, modalities: frozenset[Modality], size: tuple[float, int, int, int], *kv: KvLayers, window: int
) -> Shape:
    parameters, context, layers, heads = size
    sliding, full = kv
    return Shape(family, modalities, parameters, context, layers, heads, sliding, full, window)


_G3, _G3N, _G4 = Family.GEMMA3, Family.GEMMA3N, Family.GEMMA4
_K = 1024

#: The released sizes: (billions of parameters, context, layers, attention heads), then the layers that keep keys and
#: values: sliding, full. In Gemma 3n and Gemma 4 E2B and E4B the upper layers share those of lower ones.
SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        # https://huggingface.co/google/gemma-3-270m-it and its sizes
        "gemma-3-270m": _shape(
            _G3, TEXT, (0.27, 32 * _K, 18, 4), KvLayers(15, 1, 256), KvLayers(3, 1, 256), window=512
        ),
        "gemma-3-1b": _shape(_G3, TEXT, (1.0, 32 * _K, 26, 4), KvLayers(22, 1, 256), KvLayers(4, 1, 256), window=512),
        "gemma-3-4b": _shape(_G3, SEES, (4.3, 128 * _K, 34, 8), KvLayers(29, 4, 256), KvLayers(5, 4, 256), window=1024),
        "gemma-3-12b": _shape(
            _G3, SEES, (12.2, 128 * _K, 48, 16), KvLayers(40, 8, 256), KvLayers(8, 8, 256), window=1024
        ),
        "gemma-3-27b": _shape(
            _G3, SEES, (27.4, 128 * _K, 62, 32), KvLayers(52, 16, 128), KvLayers(10, 16, 128), window=1024
        ),
        # https://huggingface.co/google/gemma-3n-E4B-it; parameters with the embeddings of each layer and the towers
        "gemma-3n-E2B": _shape(
            _G3N, SEES_AND_HEARS, (5.4, 32 * _K, 30, 8), KvLayers(16, 2, 256), KvLayers(4, 2, 256), window=512
        ),
        "gemma-3n-E4B": _shape(
            _G3N, SEES_AND_HEARS, (7.9, 32 * _K, 35, 8), KvLayers(16, 2, 256), KvLayers(4, 2, 256), window=512
        ),
        # https://huggingface.co/google/gemma-4-31B-it and its sizes
        "gemma-4-E2B": _shape(
            _G4, EVERYTHING, (5.1, 128 * _K, 35, 8), KvLayers(12, 1, 256), KvLayers(3, 1, 512), window=512
        ),
        "gemma-4-E4B": _shape(
            _G4, EVERYTHING, (8.0, 128 * _K, 42, 8), KvLayers(20, 2, 256), KvLayers(4, 2, 512), window=512
        ),
        "gemma-4-12B": _shape(
            _G4, EVERYTHING, (12.0, 256 * _K, 48, 16), KvLayers(40, 8, 256), KvLayers(8, 1, 512), window=1024
        ),
        "gemma-4-26B-A4B": _shape(
            _G4, SEES_VIDEO, (26.5, 256 * _K, 30, 16), KvLayers(25, 8, 256), KvLayers(5, 2, 512), window=1024
        ),
        "gemma-4-31B": _shape(
            _G4, SEES_VIDEO, (31.3, 256 * _K, 60, 32), KvLayers(50, 16, 256), KvLayers(10, 4, 512), window=1024
        ),
    }
)

#: Tokens that the draft of each model proposes at once, from the recipes of vLLM. Gemma 3 and 3n have no drafts.
DRAFT_TOKENS: Mapping[str, int] = MappingProxyType(
    {"gemma-4-E2B": 2, "gemma-4-E4B": 4, "gemma-4-12B": 4, "gemma-4-26B-A4B": 4, "gemma-4-31B": 4}
)

#: For every Gemma: what an engine behind the gateway needs.
COMMON: dict[str, Value] = {
    "enable-prefix-caching": True,
    # Tells the image, audio and cached tokens of a request in its usage.
    "enable-prompt-tokens-details": True,
    # The gateway sends X-Request-Id; this returns it.
    "enable-request-id-headers": True,
    # Image budgets by request. The gateway lets nothing else through.
    "trust-request-mm-kwargs": True,
    # The gateway sends media inline. A name that cannot resolve (RFC 6761) keeps the engine from fetching anything.
    "allowed-media-domains": ["media.invalid"],
    # More than this is answered with 503 at once. It counts what runs and what waits.
    "max-num-queued-reqs": 1024,
    # By the rank that the gateway gives a request, and those of the same rank in order of arrival.
    "scheduling-policy": "priority",
    # Comments in a stream that waits its turn, so that no proxy on the way takes it for dead. In seconds.
    "sse-keep-alive-interval": 15,
    # The gateway writes the access log.
    "disable-uvicorn-access-log": True,
}

#: The name of our tool parser (gateway.engine.guided_tools) among vLLM's.
TOOL_PARSER = "gemma4_guided"

#: How many media parts of a kind one prompt may hold.
MEDIA_LIMITS = {Modality.IMAGE: 32, Modality.AUDIO: 32, Modality.VIDEO: 2}


def _family_args(family: Family) -> dict[str, Value]:
    if family is not Family.GEMMA4:
        # No parser of vLLM 0.32 is made for Gemma 3 and 3n, and their templates show no tools. With this one a request
        # that has tools is not refused, and a call that the client demands is held to its schema.
        return {"enable-auto-tool-choice": True, "tool-call-parser": "pythonic"}
    return {"enable-auto-tool-choice": True, "tool-call-parser": TOOL_PARSER, "reasoning-parser": "gemma4"}


def _size_args(preset: Preset) -> dict[str, Value]:
    # vLLM plans the sliding layers' share for each sequence with the prefill in flight on top: in the models whose
    # share is large (12B, 31B: 320 and 800 KiB a token), smaller steps leave room for more sequences.
    heavy = preset.shape.sliding.bytes_per_token >= 256 * _K
    return {"max-model-len": preset.max_model_len, "max-num-batched-tokens": 4096 if heavy else 8192}


def _media_args(modalities: frozenset[Modality]) -> dict[str, Value]:
    limits: dict[str, str | int] = {str(kind): limit for kind, limit in MEDIA_LIMITS.items() if kind in modalities}
    return {"limit-mm-per-prompt": limits} if limits else {}


def speculative_args(preset: Preset) -> Mapping[str, Value]:
    """The flag that pairs a Gemma 4 with its draft model. Not part of a preset: it costs memory and helps few streams.

    Raises ConfigurationError where there is no draft.
    """
    if preset.draft is None:
        drafts = ", ".join(sorted(DRAFT_TOKENS))
        raise ConfigurationError(f"{preset.name} has no draft model; serve it without one (drafts exist for {drafts})")
    tokens = DRAFT_TOKENS[preset.name]
    return MappingProxyType({"speculative-config": {"model": preset.draft, "num_speculative_tokens": tokens}})


def cpu_args(preset: Preset) -> Mapping[str, Value]:
    """The flags that suit a machine without a GPU.

    What vLLM keeps of processed media is bounded by 1 GiB there, in place of 4: models, keys and values are in the same
    memory.
    """
    small: dict[str, Value] = {"dtype": "float32", "enforce-eager": True} if preset.is_small else {}
    return MappingProxyType({"max-num-seqs": 64, "max-num-batched-tokens": 4096, "mm-processor-cache-gb": 1, **small})


def cpu_kv_gib(preset: Preset) -> int:
    """GiB of memory for keys and values on a CPU: three sequences of full length, as vLLM plans more than one needs."""
    wanted = 3 * preset.kv_bytes(preset.max_model_len)
    return max(1, -(-wanted // 2**30))
