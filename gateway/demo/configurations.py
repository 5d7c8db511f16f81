"""The shapes of the small Gemmas: the configuration of each, as transformers takes it.

Small in width and depth, and otherwise what the released models are, because that is where the engine's paths differ:
layer kinds, shared keys and values, experts, towers. What a size must not be below is said beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from gateway.demo.tokenizer import Tokenizer
from gateway.settings import Family

#: Tokens of context of every small Gemma.
CONTEXT = 8192
#: Standard deviation of the weights: large enough that a picture or a sound moves the logits of a random model.
SPREAD = 0.1

LAYER_KINDS = ["sliding_attention", "sliding_attention", "full_attention"] * 2


class Shape(StrEnum):
    """The kinds of Gemma 4 that differ inside the engine."""

    E = "e"
    """As E2B and E4B: embeddings per layer, upper layers that share keys and values, an audio tower."""
    DENSE = "dense"
    """As 31B: keys double as values in global layers, image tokens see one another, no audio."""
    MOE = "moe"
    """As 26B-A4B: dense, with a mixture of experts beside each feed-forward block."""


def configuration(family: Family, shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """The configuration of one small Gemma. `shape` matters to Gemma 4 only."""
    match family:
        case Family.GEMMA3:
            return _gemma3(tokenizer)
        case Family.GEMMA3N:
            return _gemma3n(tokenizer)
        case Family.GEMMA4:
            return _gemma4(shape, tokenizer)


def processor(family: Family) -> dict[str, Any]:
    """The content of processor_config.json: which classes prepare text, pictures and sound, and their sizes."""
    match family:
        case Family.GEMMA3:
            return _gemma3_processor()
        case Family.GEMMA3N:
            return _gemma3n_processor()
        case Family.GEMMA4:
            return _gemma4_processor()


def _gemma4(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "text_config": _gemma4_text(shape, tokenizer.size),
        "vision_config": _gemma4_vision(standardize=shape is not Shape.E),
        "audio_config": _gemma4_audio() if shape is Shape.E else None,
        "boi_token_id": tokenizer.media_id("boi_token"),
        "eoi_token_id": tokenizer.media_id("eoi_token"),
        "image_token_id": tokenizer.media_id("image_token"),
        "boa_token_id": tokenizer.media_id("boa_token"),
        "eoa_token_index": tokenizer.media_id("eoa_token"),
        "audio_token_id": tokenizer.media_id("audio_token"),
        "video_token_id": tokenizer.media_id("video_token"),
        "initializer_range": SPREAD,
    }


def _gemma4_text(shape: Shape, vocabulary: int) -> dict[str, Any]:
    common = {
        "vocab_size": vocabulary,
        "vocab_size_per_layer_input": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": len(LAYER_KINDS),
        "layer_types": LAYER_KINDS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "global_head_dim": 64,
        "max_position_embeddings": CONTEXT,
        "final_logit_softcapping": 30.0,
        "initializer_range": SPREAD,
    }
    # Layers that share keys and values need a full-attention layer before them.
    per_layer = {"sliding_window": 128, "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 3}
    large = {
        "sliding_window": 1024,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "attention_k_eq_v": True,
        "use_bidirectional_attention": "vision",
    }
    experts = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
    match shape:
        case Shape.E:
            return common | per_layer
        case Shape.DENSE:
            return common | large | {"num_global_key_value_heads": 1}
        case Shape.MOE:
            return common | large | experts | {"num_global_key_value_heads": 2}


def _gemma4_vision(*, standardize: bool) -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "standardize": standardize,
        # vLLM reads it from the file, where released models have it: tokens of a picture by default.
        "default_output_length": 280,
        "initializer_range": SPREAD,
    }


def _gemma4_audio() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "output_proj_dims": 64,
        # The convolutions leave 32 mel bins, and the projection after them expects channels[0] / 4 of them.
        "subsampling_conv_channels": [128, 8],
        "initializer_range": SPREAD,
    }


def _gemma4_processor() -> dict[str, Any]:
    return {
        "processor_class": "Gemma4Processor",
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor"},
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
    }


#: Pixels of a side, and tokens of a picture, of the small Gemma 3 (released: 896 and 256).
GEMMA3_SIDE, GEMMA3_IMAGE_TOKENS = 112, 16


def _gemma3(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "text_config": {
            "vocab_size": tokenizer.size,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": len(LAYER_KINDS),
            "layer_types": LAYER_KINDS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            # Released: the head's width. A random model needs sharper attention to heed what it was told.
            "query_pre_attn_scalar": 1,
            "sliding_window": 64,
            "max_position_embeddings": CONTEXT,
            "initializer_range": SPREAD,
        },
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": GEMMA3_SIDE,
            "patch_size": 14,
        },
        "mm_tokens_per_image": GEMMA3_IMAGE_TOKENS,
        "boi_token_index": tokenizer.media_id("boi_token"),
        "eoi_token_index": tokenizer.media_id("eoi_token"),
        "image_token_index": tokenizer.media_id("image_token"),
        "initializer_range": SPREAD,
    }


def _gemma3_processor() -> dict[str, Any]:
    return {
        "processor_class": "Gemma3Processor",
        "image_seq_length": GEMMA3_IMAGE_TOKENS,
        "image_processor": {
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": GEMMA3_SIDE, "width": GEMMA3_SIDE},
            "image_seq_length": GEMMA3_IMAGE_TOKENS,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    }


#: Tokens of a picture and of a clip, as released; ids of Gemma 3n's own vision and audio tokens, each.
GEMMA3N_IMAGE_TOKENS, GEMMA3N_AUDIO_TOKENS, GEMMA3N_MEDIA_IDS = 256, 188, 128


def _gemma3n(tokenizer: Tokenizer) -> dict[str, Any]:
    first_vision = tokenizer.size
    first_audio = first_vision + GEMMA3N_MEDIA_IDS
    return {
        "text_config": {
            "vocab_size": first_audio + GEMMA3N_MEDIA_IDS,
            "vocab_size_per_layer_input": tokenizer.size,
            "hidden_size": 64,
            "hidden_size_per_layer_input": 16,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "num_kv_shared_layers": 2,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
            "sliding_window": 64,
            "max_position_embeddings": CONTEXT,
            "initializer_range": SPREAD,
        },
        # MobileNetV5-300M has one size: 295 million parameters, 1.1 GB.
        "vision_config": {"hidden_size": 2048, "vocab_size": GEMMA3N_MEDIA_IDS, "vocab_offset": first_vision},
        "audio_config": {
            "vocab_size": GEMMA3N_MEDIA_IDS,
            "vocab_offset": first_audio,
            "hidden_size": 64,
            "conf_num_attention_heads": 4,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": [32, 8],
        },
        "vision_soft_tokens_per_image": GEMMA3N_IMAGE_TOKENS,
        "audio_soft_tokens_per_image": GEMMA3N_AUDIO_TOKENS,
        "boi_token_id": tokenizer.media_id("boi_token"),
        "eoi_token_id": tokenizer.media_id("eoi_token"),
        "image_token_id": tokenizer.media_id("image_token"),
        "boa_token_id": tokenizer.media_id("boa_token"),
        "eoa_token_id": tokenizer.media_id("eoa_token"),
        "audio_token_id": tokenizer.media_id("audio_token"),
        "initializer_range": SPREAD,
    }


def _gemma3n_processor() -> dict[str, Any]:
    return {
        "processor_class": "Gemma3nProcessor",
        "image_seq_length": GEMMA3N_IMAGE_TOKENS,
        "audio_seq_length": GEMMA3N_AUDIO_TOKENS,
        "image_processor": {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 768, "width": 768},
            "do_normalize": False,
        },
        "feature_extractor": {"feature_extractor_type": "Gemma3nAudioFeatureExtractor"},
    }
