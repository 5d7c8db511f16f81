"""Dense supervision: what each token of a picture and of a clip shows, and the heads that learn it. Imports torch.

The heads read the towers' output and are not part of the model: they teach the towers to see and hear before the
language part has learnt to look, and stay behind in the checkpoint.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gateway.demo.lessons.curriculum import Grid
from gateway.demo.lessons.lesson import Span, Thing
from gateway.demo.lessons.scenes import COLOURS, SHAPES
from gateway.demo.lessons.tones import TONES

#: Class 0 of each is nothing.
CLASSES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "glyph": (*string.digits, *string.ascii_uppercase),
    "tone": TONES,
}
#: Seconds of a token of sound.
FRAME = 0.04
#: The weight of a box's edges beside the classes: fractions of the picture are small numbers.
BOX_WEIGHT = 5.0


class Heads(nn.Module):  # type: ignore[misc]  # torch may be absent, and is Any to mypy
    """Linear heads over the tokens that the towers hand to the language part."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.classes = nn.ModuleDict({name: nn.Linear(hidden, 1 + len(of)) for name, of in CLASSES.items()})
        self.box = nn.Linear(hidden, 4)

    def losses(self, tokens: torch.Tensor, truth: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss over tokens of (tokens, hidden); `truth` has a tensor by class, and `box` for pictures."""
        tokens = tokens.float()
        names = [name for name in truth if name != "box"]
        loss = sum(functional.cross_entropy(self.classes[name](tokens), truth[name]) for name in names)
        inside = truth["box"][:, 0] >= 0 if "box" in truth else torch.zeros(1, dtype=torch.bool)
        if inside.any():
            edges = functional.smooth_l1_loss(self.box(tokens[inside]), truth["box"][inside], beta=0.05)
            loss = loss + BOX_WEIGHT * edges
        return torch.as_tensor(loss)


def cells(pictures: Sequence[Sequence[Thing]], grid: Grid) -> dict[str, torch.Tensor]:
    """What the middle of each token shows, picture after picture, row by row; boxes of -1 where there is nothing."""
    middles = [((x + 0.5) / grid[0], (y + 0.5) / grid[1]) for y in range(grid[1]) for x in range(grid[0])]
    shown = [_at(things, *middle) for things in pictures for middle in middles]
    truth = {name: _numbers(name, [getattr(thing, name, "") for thing in shown]) for name in ("colour", "shape")}
    truth["glyph"] = _numbers("glyph", [thing.glyph if thing else "" for thing in shown])
    truth["box"] = torch.tensor([thing.box if thing else (-1.0,) * 4 for thing in shown])
    return truth


def frames(clips: Sequence[Sequence[Span]], heard: Sequence[int]) -> dict[str, torch.Tensor]:
    """What the middle of each token sounds like, clip after clip."""
    tones = [
        next((span.tone for span in spans if span.start <= (index + 0.5) * FRAME < span.end), "")
        for spans, count in zip(clips, heard, strict=True)
        for index in range(count)
    ]
    return {"tone": _numbers("tone", tones)}


def _at(things: Sequence[Thing], x: float, y: float) -> Thing | None:
    return next((t for t in things if t.box[0] <= x < t.box[2] and t.box[1] <= y < t.box[3]), None)


def _numbers(name: str, values: Sequence[str]) -> torch.Tensor:
    order = {value: index for index, value in enumerate(CLASSES[name], 1)}
    return torch.tensor([order.get(value, 0) for value in values])
