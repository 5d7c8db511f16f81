"""Dense supervision: what each token of a picture and of a clip shows, and the heads that learn it. Imports torch.

The heads read the towers' output and are not part of the model: they teach the towers to see and hear before the
language part has learnt to look, and stay behind in the checkpoint.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from gateway.demo.lessons.curriculum import Grid
from gateway.demo.lessons.lesson import Span, Thing
from gateway.demo.lessons.scenes import COLOURS, SHAPES, left_to_right
from gateway.demo.lessons.tones import TONES

#: Class 0 of each is nothing.
CLASSES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "glyph": (*string.digits, *string.ascii_uppercase),
    "tone": TONES,
    # Which from the left, where there are so few: in this order answers name them.
    "rank": tuple("12345"),
}
#: The digits that answers give for an edge of a box: hundreds and tens, of 1000.
DIGITS, EDGES = 10, 4
#: Not to be learnt, as `cross_entropy` has it.
UNSURE = -100
#: Those that a thing in a picture has itself.
PICTURED = ("colour", "shape", "glyph")
#: Seconds of a token of sound.
FRAME = 0.04
#: The weight of an edge beside the classes, for fractions of the picture are small numbers, and from which error on it
#: costs in proportion.
EDGE_WEIGHT, EDGE_BETA = 10.0, 0.01
#: Tens are finer than patches, and mostly chance.
DIGIT_WEIGHTS = (1.0, 0.3)
#: The share of a thing, or of the token, that they have to have in common for the token to show the thing.
SHARE = 0.5


class Heads(nn.Module):  # type: ignore[misc]  # torch may be absent, and is Any to mypy
    """Linear heads over the tokens that the towers hand to the language part, and one over what that makes of them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.classes = nn.ModuleDict({name: nn.Linear(hidden, 1 + len(of)) for name, of in CLASSES.items()})
        self.box = nn.Linear(hidden, EDGES)
        self.digits = nn.Linear(hidden, EDGES * len(DIGIT_WEIGHTS) * DIGITS)
        self.edge = nn.Linear(hidden, 1)

    def losses(self, tokens: torch.Tensor, truth: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The mean losses by name, of (tokens, hidden); `truth` has a tensor for each class, maybe one of boxes."""
        tokens = tokens.float()
        names = [name for name in truth if name != "box"]
        losses = {name: functional.cross_entropy(self.classes[name](tokens), truth[name]) for name in names}
        if "box" in truth and (inside := truth["box"][:, 0] >= 0).any():
            losses["box"] = self._edges(tokens[inside], truth["box"][inside])
        return losses

    def edge_loss(self, states: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """The loss of the edges of boxes (fractions of the picture) in the last states from which their digits are
        said: (digits, hidden) and (digits,).
        """
        return _distance(self.edge(states.float())[:, 0], edges)

    def _edges(self, tokens: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        loss = _distance(self.box(tokens), boxes)
        said = self.digits(tokens).view(-1, EDGES, len(DIGIT_WEIGHTS), DIGITS)
        hundredths = (boxes * 100).round().clamp(0, 99).long()
        for place, (weight, digit) in enumerate(zip(DIGIT_WEIGHTS, (hundredths // 10, hundredths % 10), strict=True)):
            loss = loss + weight * functional.cross_entropy(said[:, :, place].flatten(0, 1), digit.flatten())
        return torch.as_tensor(loss)


def _distance(said: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(EDGE_WEIGHT * functional.smooth_l1_loss(said, edges, beta=EDGE_BETA))


def cells(pictures: Sequence[Sequence[Thing]], grid: Grid, *, whole: bool = True) -> dict[str, torch.Tensor]:
    """What each token shows, picture after picture, row by row; boxes of -1 where there is nothing.

    `whole`: the pictures are no pieces, so that boxes mean something.
    """
    truths = [_shown(things, grid) for things in pictures]
    truth = {name: torch.from_numpy(np.concatenate([of[name] for of in truths])) for name in truths[0]}
    if not whole:
        del truth["box"]
    return truth


def _shown(things: Sequence[Thing], grid: Grid) -> dict[str, NDArray[Any]]:
    """What each token of one picture shows: the thing of which there is most in it, if that is much of either."""
    tokens = grid[0] * grid[1]
    boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, EDGES)
    across = _common(boxes[:, 0], boxes[:, 2], grid[0])
    down = _common(boxes[:, 1], boxes[:, 3], grid[1])
    common = (down[:, :, None] * across[:, None, :]).reshape(len(things), tokens)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    most = common.argmax(axis=0)
    much = common.max(axis=0) >= SHARE * np.minimum(areas[most], 1 / tokens)
    some = common.max(axis=0) > 0
    ranks = _ranks(things)

    def classes(of: Sequence[int]) -> NDArray[Any]:
        return np.where(much, np.array(of)[most], np.where(some, UNSURE, 0))

    shown = {name: classes(_numbers(name, [getattr(thing, name) for thing in things])) for name in PICTURED}
    return shown | {
        "rank": classes(ranks),
        "box": np.where(much[:, None], boxes[most], np.float32(-1)),
    }


def _common(starts: NDArray[np.float32], ends: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(things, count): the length that each thing has in common with each of the parts of 0 to 1."""
    edges = np.linspace(0, 1, count + 1, dtype=np.float32)
    common: NDArray[np.float32] = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    return common.clip(min=0)


def _ranks(things: Sequence[Thing]) -> list[int]:
    if len(things) > len(CLASSES["rank"]):
        return [UNSURE] * len(things)
    order = left_to_right(things)
    return [1 + order.index(thing) for thing in things]


def frames(clips: Sequence[Sequence[Span]], heard: Sequence[int]) -> dict[str, torch.Tensor]:
    """What the middle of each token sounds like, clip after clip."""
    tones = [
        next((span.tone for span in spans if span.start <= (index + 0.5) * FRAME < span.end), "")
        for spans, count in zip(clips, heard, strict=True)
        for index in range(count)
    ]
    return {"tone": torch.tensor(_numbers("tone", tones))}


def _numbers(name: str, values: Sequence[str]) -> list[int]:
    order = {value: index for index, value in enumerate(CLASSES[name], 1)}
    return [order.get(value, 0) for value in values]
