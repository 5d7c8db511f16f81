"""The arithmetic of tokens gives what the models' processors and vLLM give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MediaError
from gateway.media.budget import IMAGE_BUDGETS, VIDEO_FRAME_BUDGET, image_size, image_tokens, video_tokens
from gateway.settings import Family

G3, G3N, G4 = Family.GEMMA3, Family.GEMMA3N, Family.GEMMA4
SIDES = st.integers(1, 20_000)

#: Width and height in pixels: the smallest, the most stretched, whole and nearly whole cells, and what comes.
_random = np.random.default_rng(3)
SIZES = [
    *[(1, 1), (1, 20_000), (3, 900), (4000, 20), (17, 1190), (2380, 34), (16_320, 3), (48, 48), (768, 768)],
    *[(47 + w % 3, 47 + h % 3) for w in range(3) for h in range(3)],
    *[(width * 48 + around, 96) for width in (69, 70, 140, 280) for around in (-1, 0, 1)],
    *_random.integers(1, 300, (150, 2)).tolist(),
    *_random.integers(1, 9000, (150, 2)).tolist(),
    *(np.exp(_random.uniform(0, 9.7, (150, 2))).astype(int).tolist()),
]


@pytest.mark.parametrize(
    ("size", "family", "budget", "resized", "tokens"),
    [
        ((4032, 3024), G4, 70, (432, 336), 65),
        ((4032, 3024), G4, None, (912, 672), 268),
        ((4032, 3024), G4, 1120, (1824, 1344), 1066),
        ((1, 1), G4, None, (768, 768), 258),
        ((900, 3), G4, None, (13_440, 48), 282),
        ((4032, 3024), G3, None, (896, 896), 260),
        ((4032, 3024), G3N, None, (768, 768), 260),
    ],
)
def test_size_and_tokens_of_an_image(
    size: tuple[int, int], family: Family, budget: int | None, resized: tuple[int, int], tokens: int
) -> None:
    assert image_size(*size, family, budget) == resized
    assert image_tokens(*size, family, budget) == tokens


@given(SIDES, SIDES, st.sampled_from(IMAGE_BUDGETS))
def test_an_image_stays_within_its_budget_whichever_side_is_the_width(width: int, height: int, budget: int) -> None:
    columns, rows = (side // 48 for side in image_size(width, height, G4, budget))
    assert 1 <= columns * rows <= budget
    assert image_size(height, width, G4, budget) == (rows * 48, columns * 48)
    assert image_tokens(width, height, G4, budget) == image_tokens(height, width, G4, budget) <= budget + 2


@pytest.mark.parametrize(
    ("size", "times", "tokens"),
    [
        ((320, 240), [0.0], 63 + 2 + 6),
        ((320, 240), [0.0, 59.9, 60.0], 3 * (63 + 2 + 6) + 2),
        ((1920, 1080), [index / 24 for index in range(32)], 32 * (66 + 2 + 6) + 31),
        ((1920, 1080), [6000.0], 66 + 2 + 7),
    ],
)
def test_tokens_of_a_video_are_those_of_its_frames_and_of_the_times_between(
    size: tuple[int, int], times: list[float], tokens: int
) -> None:
    assert video_tokens(*size, times) == tokens


@given(SIDES, SIDES)
def test_pan_and_scan_is_the_same_whichever_side_is_the_width(width: int, height: int) -> None:
    assert image_tokens(width, height, G3, pan_and_scan=True) == image_tokens(height, width, G3, pan_and_scan=True)


@pytest.mark.parametrize(
    ("size", "crops"), [((1000, 900), 0), ((300, 200), 0), ((600, 300), 2), ((1000, 300), 3), ((4000, 500), 4)]
)
def test_pan_and_scan_pays_for_each_crop_and_the_words_around(size: tuple[int, int], crops: int) -> None:
    words = 17 + crops - 1 if crops else 0
    assert image_tokens(*size, G3, pan_and_scan=True) == 260 * (1 + crops) + words
    assert image_tokens(*size, G3) == image_tokens(*size, G3N, pan_and_scan=True) == 260


@pytest.fixture(scope="module")
def _importable() -> None:
    """Importing transformers beside a torch for the CPU needs the plugin's platform hook."""
    from gateway.engine.compat import platform

    platform()


@pytest.fixture(scope="module")
def by_vllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _importable: None) -> Any:
    """vLLM's `ProcessingInfo` of a small Gemma of the wanted family, which replaces media by tokens."""
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    from gateway.demo.model import write_model

    directory: Path = tmp_path_factory.mktemp("models") / "gemma"
    write_model(directory, request.param)
    return MULTIMODAL_REGISTRY.create_processor(ModelConfig(model=str(directory))).info


@pytest.mark.engine
@pytest.mark.usefixtures("_importable")
def test_images_are_resized_as_by_the_processors_of_gemma_4() -> None:
    from transformers.models.gemma4 import image_processing_gemma4
    from transformers.models.gemma4_unified import image_processing_gemma4_unified

    for module in (image_processing_gemma4, image_processing_gemma4_unified):
        for (width, height), budget in pairs():
            rows, columns = module.get_aspect_ratio_preserving_size(height, width, 16, budget * 9, 3)
            assert image_size(width, height, G4, budget) == (columns, rows)


@pytest.mark.engine
@pytest.mark.parametrize("by_vllm", [G4], indirect=True)
def test_gemma_4_costs_what_vllm_puts_in_the_place_of_an_image(by_vllm: Any) -> None:
    processor = by_vllm.get_hf_processor()
    for (width, height), budget in pairs():
        replaced = by_vllm.get_image_repl(
            image_width=width, image_height=height, processor=processor, max_soft_tokens=budget
        )
        assert image_tokens(width, height, G4, budget) == len(replaced.full)


@pytest.mark.engine
@pytest.mark.parametrize("by_vllm", [G4], indirect=True)
def test_gemma_4_costs_what_vllm_puts_in_the_place_of_a_video(by_vllm: Any) -> None:
    processor = by_vllm.get_hf_processor()
    lengths = np.exp(_random.uniform(-2, 9, len(SIZES)))
    for (width, height), seconds in zip(SIZES, lengths, strict=True):
        times = np.linspace(0, seconds, int(_random.integers(1, 33))).tolist()
        cells = by_vllm._compute_num_soft_tokens(width, height, max_soft_tokens=VIDEO_FRAME_BUDGET)
        replaced = by_vllm.get_video_repl(
            timestamps=times, num_soft_tokens_per_frame=[cells] * len(times), processor=processor
        )
        try:
            assert video_tokens(width, height, times) == len(replaced.full)
        except MediaError:
            assert max(width, height) == 70 * min(width, height)


@pytest.mark.engine
@pytest.mark.parametrize("by_vllm", [G3], indirect=True)
@pytest.mark.filterwarnings("ignore:.*pan_and_scan.*")
def test_gemma_3_costs_what_vllm_puts_in_the_place_of_an_image_and_its_crops(by_vllm: Any) -> None:
    """The small Gemma has smaller images, and other tokens for the words around crops."""
    processor = by_vllm.get_hf_processor()
    image, words = len(processor.tokenizer.encode(processor.full_image_sequence, add_special_tokens=False)), {}
    for width, height in SIZES:
        for pan_and_scan in (False, True):
            arguments = {"do_pan_and_scan": pan_and_scan}
            asked = {"image_width": width, "image_height": height, "processor": processor, "mm_kwargs": arguments}
            crops = by_vllm.get_num_crops(**asked)
            words[crops] = len(by_vllm.get_image_repl(**asked).full) - image * (1 + crops)
            expected = 260 * (1 + crops) + (17 + crops - 1 if crops else 0)
            assert image_tokens(width, height, G3, pan_and_scan=pan_and_scan) == expected
    assert image == processor.image_seq_length + 4
    assert words[0] == 0
    assert words[4] - words[3] == words[3] - words[2] == 1


@pytest.mark.engine
@pytest.mark.extended
@pytest.mark.parametrize("by_vllm", [G3N], indirect=True)
def test_gemma_3n_costs_what_vllm_puts_in_the_place_of_an_image(by_vllm: Any) -> None:
    replaced = by_vllm.get_image_repl(image_width=40, image_height=24, processor=by_vllm.get_hf_processor())
    assert image_tokens(40, 24, G3N) == len(replaced.full)


def pairs() -> Iterator[tuple[tuple[int, int], int]]:
    """Every size with every budget."""
    return ((size, budget) for size in SIZES for budget in IMAGE_BUDGETS)
