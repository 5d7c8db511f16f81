"""Turns lessons into tensors: one batch, without padding pictures to their budget. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gateway.demo import dense
from gateway.demo.lessons.curriculum import CELL, Grid
from gateway.demo.lessons.lesson import Clip, Lesson

PATCH, POOL = 16, 3
#: No token is learnt here.
IGNORED = -100
NO_EDGE = -1.0
#: What the model has said in a conversation, with the end of its turn.
SAID = re.compile(r"(?<=<\|turn>model\n)(.*?<turn\|>)", re.DOTALL)


@dataclass(frozen=True)
class Batch:
    """Lessons as the model takes them. Without pictures, or clips, those tensors are None."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    """(lessons, tokens): the token that follows each one if it is part of the answer, else IGNORED. Empty where
    nothing is said."""
    edges: torch.Tensor | None
    """(lessons, tokens): the edge of a box, as a fraction of the picture, of which the token that follows is a digit;
    NO_EDGE elsewhere."""
    tasks: tuple[str, ...]
    cells: dict[str, torch.Tensor] | None
    frames: dict[str, torch.Tensor] | None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(_to(getattr(self, field.name), device) for field in fields(self)))


class Encoder:
    """Encodes with the tokenizer, chat template and mel filters of a model directory."""

    def __init__(self, directory: Path) -> None:
        from gateway.engine import compat

        compat.platform()  # before transformers is imported: see there
        from transformers import AutoProcessor

        self.processor: Any = AutoProcessor.from_pretrained(directory)
        self.tokenizer: Any = self.processor.tokenizer

    def prompt(self, lesson: Lesson, grid: Grid | None, heard: Sequence[int]) -> str:
        """The text before the answer; each picture and clip is as many markers as it has tokens."""
        text: str = self.tokenizer.apply_chat_template(
            list(lesson.messages),
            tools=list(lesson.tools) or None,
            chat_template=self.processor.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        if grid is not None:
            shown = f"<|image>{'<|image|>' * (grid[0] * grid[1])}<image|>"
            text = text.replace("<|image|>", shown)
        before, *rest = text.split("<|audio|>")
        clips = zip(heard, rest, strict=True)
        return before + "".join(f"<|audio>{'<|audio|>' * count}<audio|>{after}" for count, after in clips)

    def encode(self, lessons: Sequence[Lesson], grid: Grid, offset: Grid | None = None) -> Batch:
        """A batch of lessons whose pictures all become `grid` tokens, and stand `offset` tokens within larger ones.

        Lessons in which nothing is said have neither ids nor labels.
        """
        images = [picture for lesson in lessons for picture in lesson.pictures]
        clips = [clip for lesson in lessons for clip in lesson.clips]
        inputs, heard = self._sounds(clips)
        if images:
            inputs |= see([picture.image for picture in images], grid, offset or (0, 0))
        seen = dense.cells([picture.things for picture in images], grid, whole=offset is None) if images else None
        tasks = tuple(lesson.task for lesson in lessons)
        if not any(lesson.messages for lesson in lessons):
            return Batch(inputs, torch.empty(0, dtype=torch.long), None, tasks, seen, None)
        counts = iter(heard)
        rows = [self._row(lesson, grid, [next(counts) for _ in lesson.clips]) for lesson in lessons]
        ids, labels = _pad([ids for ids, _ in rows], 0), _pad([labels for _, labels in rows], IGNORED)
        inputs |= {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < _lengths(rows)).long()}
        return Batch(
            inputs,
            labels,
            self._edges(labels, lessons),
            tasks,
            seen,
            dense.frames([clip.spans for clip in clips], heard) if clips else None,
        )

    def _row(self, lesson: Lesson, grid: Grid, heard: Sequence[int]) -> tuple[list[int], list[int]]:
        """The ids of a lesson without the last, and the labels: what the model says is every other piece."""
        prompt = self.prompt(lesson, grid if lesson.pictures else None, heard)
        pieces = [*(SAID.split(prompt) if lesson.each else [prompt]), lesson.answer + lesson.end]
        ids = [self._ids(piece) for piece in pieces]
        labels = [piece if at % 2 else [IGNORED] * len(piece) for at, piece in enumerate(ids)]
        return list(chain(*ids))[:-1], list(chain(*labels))[1:]

    def _edges(self, labels: torch.Tensor, lessons: Sequence[Lesson]) -> torch.Tensor | None:
        """The `edges` of a batch; None if there is no box in it."""
        edges = torch.full(labels.shape, NO_EDGE)
        for at, lesson in enumerate(lessons):
            if "box_2d" not in lesson.answer:
                continue
            learnt = (labels[at] != IGNORED).nonzero()[:, 0]
            words = self.tokenizer.convert_ids_to_tokens(labels[at][learnt])
            for isdigit, number in groupby(zip(learnt.tolist(), words, strict=True), lambda one: one[1].isdigit()):
                places, digits = zip(*number, strict=True)
                if isdigit:
                    edges[at, list(places)] = int("".join(digits)) / 1000
        return edges if (edges != NO_EDGE).any() else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _sounds(self, clips: Sequence[Clip]) -> tuple[dict[str, torch.Tensor], list[int]]:
        if not clips:
            return {}, []
        extracted = self.processor.feature_extractor([clip.samples for clip in clips], return_tensors="pt")
        mask = extracted["input_features_mask"].bool()
        heard = mask[:, ::2][:, ::2].sum(dim=1).tolist()
        return {"input_features": extracted["input_features"], "input_features_mask": mask}, heard


def see(images: Sequence[Image.Image], grid: Grid, offset: Grid = (0, 0)) -> dict[str, torch.Tensor]:
    """Patches of the pictures and where each is: (pictures, patches, 768) of 0 to 1, and (pictures, patches, 2)."""
    width, height = grid[0] * CELL, grid[1] * CELL
    resized = [i if i.size == (width, height) else i.resize((width, height), Image.Resampling.BICUBIC) for i in images]
    pixels = np.stack([_patches(np.asarray(image, np.float32) / np.float32(255)) for image in resized])
    across, down = np.meshgrid(np.arange(width // PATCH), np.arange(height // PATCH), indexing="xy")
    places = np.stack([across.ravel() + offset[0] * POOL, down.ravel() + offset[1] * POOL], axis=-1)
    places = places[None].repeat(len(images), axis=0)
    return {"pixel_values": torch.from_numpy(pixels), "image_position_ids": torch.from_numpy(places)}


def _patches(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    cut = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(rows * columns, PATCH * PATCH * 3)


def _pad(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def _lengths(rows: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    return torch.tensor([[len(ids)] for ids, _ in rows])


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: tensor.to(device) for key, tensor in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value
