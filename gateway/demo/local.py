"""Answers lessons with transformers, without an engine. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gateway.demo.features import Batch, Encoder
from gateway.demo.lessons.curriculum import CELL, Grid
from gateway.demo.lessons.lesson import Lesson

LONGEST_ANSWER = 160


class Local:
    """A model directory in this process, in float32."""

    def __init__(self, directory: Path) -> None:
        self.encoder = Encoder(directory)
        from transformers import AutoModelForImageTextToText

        self.model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()

    def answer(self, lesson: Lesson, budget: int, quarter: bool) -> str:
        """The greedy answer."""
        return self.text(self.tokens(lesson, budget, quarter=quarter))

    def tokens(self, lesson: Lesson, budget: int, *, quarter: bool = False) -> list[int]:
        """The ids of the greedy answer, without its end."""
        size = lesson.pictures[0].image.size if lesson.pictures else (CELL, CELL)
        grid = (size[0] // CELL, size[1] // CELL) if quarter else grid_at(size, budget)
        batch = self.encoder.encode([lesson], grid)
        prompt = self._prompt(batch)
        given = {k: v for k, v in batch.inputs.items() if k not in ("input_ids", "attention_mask")}
        with torch.no_grad():
            made = self.model.generate(input_ids=prompt, max_new_tokens=LONGEST_ANSWER, do_sample=False, **given)
        ids: list[int] = made[0, prompt.shape[1] :].tolist()
        ends = self.model.generation_config.eos_token_id
        return ids[:-1] if ids and ids[-1] in ends else ids

    def text(self, ids: list[int]) -> str:
        """The text of an answer, tool notation and all."""
        text: str = self.encoder.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @staticmethod
    def _prompt(batch: Batch) -> torch.Tensor:
        first = int((batch.labels[0] >= 0).nonzero()[0])
        return batch.inputs["input_ids"][:, : first + 1]


def grid_at(size: tuple[int, int], budget: int) -> Grid:
    """The tokens across and down that Gemma 4 makes of a picture of that size (pixels) at that budget."""
    from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

    height, width = get_aspect_ratio_preserving_size(
        height=size[1], width=size[0], patch_size=16, max_patches=budget * 9, pooling_kernel_size=3
    )
    return width // CELL, height // CELL
