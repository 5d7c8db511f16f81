"""What a clip costs is what the model's processor and vLLM make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.media.audio import LONGEST, SHORTEST
from gateway.media.budget import audio_tokens
from gateway.settings import Family

#: Of clips, in samples: around the borders of the first tokens and of the last, and what comes.
SIZES = [
    *range(SHORTEST, SHORTEST + 700, 53),
    *range(LONGEST - 700, LONGEST + 1, 50),
    *(at + by for at in (640, 641, 800, 801, 16_000) for by in (-1, 0, 1) if at + by >= SHORTEST),
    *np.random.default_rng(4).integers(SHORTEST, LONGEST, 300).tolist(),
]


@pytest.mark.parametrize(
    ("seconds", "family", "tokens"),
    [
        (0.04, Family.GEMMA4, 3),
        (1, Family.GEMMA4, 27),
        (30, Family.GEMMA4, 752),
        (0.04, Family.GEMMA3N, 192),
        (30, Family.GEMMA3N, 192),
    ],
)
def test_a_clip_costs_its_tokens_and_its_markers(seconds: float, family: Family, tokens: int) -> None:
    assert audio_tokens(round(seconds * 16_000), family) == tokens


def test_a_clip_that_is_long_enough_is_at_least_one_token() -> None:
    assert audio_tokens(SHORTEST, Family.GEMMA4) - audio_tokens(0, Family.GEMMA4) == 1


@pytest.fixture(scope="module", params=[Family.GEMMA4, Family.GEMMA3N])
def hearing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Any]:
    """A family that hears, and its processor as transformers makes it of a model's files."""
    from gateway.engine.compat import platform

    platform()
    from transformers import Gemma3nProcessor, Gemma4Processor

    from gateway.demo import configurations, tokenizer

    family: Family = request.param
    folder: Path = tmp_path_factory.mktemp(family)
    tokenizer.build(family).write(folder)
    (folder / "processor_config.json").write_text(json.dumps(configurations.processor(family)))
    kind = Gemma4Processor if family is Family.GEMMA4 else Gemma3nProcessor
    return family, kind.from_pretrained(folder)


@pytest.mark.engine
def test_the_processor_writes_as_many_tokens_into_the_prompt(hearing: tuple[Family, Any]) -> None:
    family, processor = hearing
    beginning = len(processor.tokenizer("")["input_ids"])
    for size in SIZES[::6]:
        prompt = processor(text=processor.audio_token, audio=[np.zeros(size, np.float32)])["input_ids"][0]
        assert len(prompt) - beginning == audio_tokens(size, family), size


@pytest.mark.engine
def test_vllm_reserves_as_many_tokens_for_gemma_4() -> None:
    from vllm.model_executor.models.gemma4_mm import Gemma4ProcessingInfo

    counted = [Gemma4ProcessingInfo._compute_audio_num_tokens(size, 16_000, 750) + 2 for size in SIZES]
    assert counted == [audio_tokens(size, Family.GEMMA4) for size in SIZES]


@pytest.mark.engine
def test_what_is_longer_than_the_limit_is_cut_by_the_processor(hearing: tuple[Family, Any]) -> None:
    """The reason for the limit: were it lower, clips would be refused for nothing; higher, they would be cut."""
    _, processor = hearing
    extractor = processor.feature_extractor
    noise = np.random.default_rng(1).standard_normal(LONGEST + 16_000).astype(np.float32)
    whole, cut = (extractor([noise[:size]])["input_features"][0] for size in (LONGEST, noise.size))
    np.testing.assert_array_equal(whole, cut)
    assert not np.array_equal(whole, extractor([noise[: LONGEST - 1_600]])["input_features"][0])
