"""Gemma's own arithmetic: from the size of an image and the length of a clip to the soft tokens they cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.settings import Family

#: Soft tokens that Gemma 4 may spend on an image (its image processor's `max_soft_tokens`).
IMAGE_BUDGETS = (70, 140, 280, 560, 1120)
DEFAULT_IMAGE_BUDGET = 280

#: Pixels of a side of what becomes one soft token of Gemma 4: patches of 16 pixels, pooled three by three.
_CELL = 48

#: Pixels of a side of the square that the released Gemma 3 and 3n see (`size` in their preprocessor_config.json).
_SQUARES = {Family.GEMMA3: 896, Family.GEMMA3N: 768}

#: Soft tokens of that square, the two markers around them and the two blank lines around those.
_SQUARE_TOKENS = 256 + 4

#: Gemma 3's pan-and-scan, by the defaults of its processor, which the released files keep.
_MOST_CROPS, _SMALLEST_CROP, _LEAST_RATIO = 4, 256, 1.2

#: In the released vocabulary: "Here is the original image " and " and here are some crops to help you see better ".
_CROPS_TEXT = 6 + 11


def image_size(width: int, height: int, family: Family, max_soft_tokens: int | None = None) -> tuple[int, int]:
    """Width and height, in pixels, to which the model's processor resizes an image of that width and height.

    Gemma 4 keeps the proportions and fills at most `max_soft_tokens` (None: 280) cells of 48 pixels; an image longer
    than that many times its other side becomes one row of them (`get_aspect_ratio_preserving_size` of transformers'
    image_processing_gemma4.py). The others squeeze every image into their square.
    """
    if family is not Family.GEMMA4:
        return _SQUARES[family], _SQUARES[family]
    cells = max_soft_tokens or DEFAULT_IMAGE_BUDGET
    scale = math.sqrt(cells * _CELL**2 / (width * height))
    columns, rows = int(scale * width / _CELL), int(scale * height / _CELL)
    if not rows:
        columns, rows = min(width // height, cells), 1
    elif not columns:
        columns, rows = 1, min(height // width, cells)
    return columns * _CELL, rows * _CELL


def image_tokens(
    width: int, height: int, family: Family, max_soft_tokens: int | None = None, pan_and_scan: bool = False
) -> int:
    """What an image costs, with its markers, as vLLM's `multimodal_tokens` counts it; sides in pixels.

    It is the same whichever side is the width, so that an orientation in EXIF does not matter.
    """
    if family is Family.GEMMA4:
        return _gemma4_cells(width, height, max_soft_tokens or DEFAULT_IMAGE_BUDGET) + 2
    crops = _crops(width, height) if pan_and_scan and family is Family.GEMMA3 else 0
    return _SQUARE_TOKENS * (1 + crops) + (_CROPS_TEXT + crops - 1 if crops else 0)


def _gemma4_cells(width: int, height: int, most: int) -> int:
    """`_compute_num_soft_tokens` of vLLM's gemma4_mm.py, in its very steps.

    They round otherwise than those of the processor for some images exactly `most` times longer than wide, such as
    1190 by 17 pixels at 70: there vLLM places, and counts, one cell less than the processor makes.
    """
    scale = math.sqrt(most * 9 / ((height / 16) * (width / 16)))
    rows, columns = (max(1, math.floor(side * scale / _CELL)) for side in (height, width))
    return min(rows * columns, most)


def _crops(width: int, height: int) -> int:
    """Crops of Gemma 3's pan-and-scan (`pan_and_scan_batched` of transformers' image_processing_gemma3.py)."""
    longer, shorter = max(width, height), min(width, height)
    if longer / shorter < _LEAST_RATIO:
        return 0
    crops = min(longer // _SMALLEST_CROP, math.floor(longer / shorter + 0.5))
    crops = min(max(2, crops), _MOST_CROPS)
    return crops if min(math.ceil(longer / crops), shorter) >= _SMALLEST_CROP else 0


#: Gemma 3n spends 188 on every clip (`audio_seq_length` of its processor, TOKENS_PER_AUDIO in vLLM), and four on the
#: two markers and the two blank lines around it (`full_audio_sequence`).
_GEMMA3N_AUDIO = 188 + 4

#: What Gemma 4's processor grants at most (`audio_seq_length`), and the two markers around a clip.
_MOST_GEMMA4_AUDIO, _GEMMA4_MARKERS = 750, 2

#: Samples at 16 kHz: a mel frame starts every 10 ms, and the first is whole once 10 ms and a sample are there.
_HOP, _FIRST_FRAME = 160, 161

#: Mel frames in a token: two convolutions of stride 2.
_FRAMES_PER_TOKEN = 4


def audio_tokens(samples: int, family: Family) -> int:
    """What a clip of `samples` at 16 kHz costs, with its markers, as vLLM's `multimodal_tokens` counts it.

    `_compute_audio_num_tokens` of transformers' Gemma4Processor and of vLLM's gemma4_mm.py, shortened: halving twice
    and rounding up each time is dividing by four and rounding up once.
    """
    if family is Family.GEMMA3N:
        return _GEMMA3N_AUDIO
    frames = max(0, (samples - _FIRST_FRAME) // _HOP + 1)
    return min(-(-frames // _FRAMES_PER_TOKEN), _MOST_GEMMA4_AUDIO) + _GEMMA4_MARKERS


#: Soft tokens that a frame of a video may cost (_VIDEO_MAX_SOFT_TOKENS of vLLM's gemma4_mm.py).
VIDEO_FRAME_BUDGET = 70


def video_tokens(width: int, height: int, times: Sequence[float]) -> int:
    """What a video costs whose frames are shown at `times` in seconds, as vLLM's `multimodal_tokens` counts it.

    Before each frame stands its time, `mm:ss` and a space, from the second frame on behind another space; every
    character of it is a token (`get_video_repl` of vLLM's gemma4_mm.py).
    """
    frame = image_tokens(width, height, Family.GEMMA4, VIDEO_FRAME_BUDGET)
    texts = sum(len(f"{int(time // 60):02d}:{int(time % 60):02d} ") for time in times)
    return len(times) * frame + texts + len(times) - 1
