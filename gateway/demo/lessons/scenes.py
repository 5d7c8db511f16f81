"""Draws pictures of coloured shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from gateway.demo.lessons.lesson import Draw, Picture, Thing, pick

#: Red and blue are one another's mirror: with the channels swapped each is the other.
COLOURS = {
    "red": (215, 35, 40),
    "green": (30, 150, 60),
    "blue": (40, 35, 215),
    "yellow": (245, 205, 25),
    "orange": (245, 125, 20),
    "purple": (125, 40, 165),
    "pink": (245, 130, 180),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "ring")
GROUNDS = ((255, 255, 255), (236, 236, 236), (224, 236, 248), (250, 244, 224), (228, 244, 228))

#: A shape's size as a fraction of the picture's shorter side, for one shape and for many.
ALONE, AMONG = (0.3, 0.65), (0.2, 0.38)
#: The same in a crowd, and there the least in pixels.
SCATTERED, LEAST = (0.1, 0.55), 28
#: How far centres are apart at least, left to right, so that the order of naming is plain (fraction of the width).
APART = 0.08
TRIES = 200
#: Each pixel is the mean of this many, squared.
FINER = 2
#: How much a channel of a colour differs from picture to picture.
SHADE = 18

Point = tuple[float, float]


def paint(draw: Draw, size: tuple[int, int], kinds: Sequence[tuple[str, str]]) -> Picture:
    """A picture of `size` (width, height; pixels) that shows each (colour, shape) once, apart from one another."""
    things = _place(draw, size, kinds)
    canvas = Image.new("RGB", (size[0] * FINER, size[1] * FINER), pick(draw, GROUNDS))
    pen = ImageDraw.Draw(canvas)
    for thing in things:
        _draw_shape(pen, thing.shape, _pixels(thing, canvas.size), _shade(draw, thing.colour))
    return Picture(canvas.reduce(FINER), tuple(things))


def scatter(draw: Draw, size: tuple[int, int], count: int) -> tuple[Image.Image, list[Thing]]:
    """A picture of `size` with up to `count` things apart from one another, small and large: half of them shapes, which
    are drawn, half of them rooms left free.
    """
    boxes: list[tuple[float, float, float, float]] = []
    for _ in range(count * 4):
        extent = float(np.exp(draw.uniform(*np.log(SCATTERED))))
        box = _box(draw, size, max(extent, LEAST / min(size)))
        if len(boxes) < count and not any(_crossing(box, other) for other in boxes):
            boxes.append(box)
    names = list(COLOURS)
    things = [Thing(box, pick(draw, SHAPES), pick(draw, names)) if draw.random() < 0.5 else Thing(box) for box in boxes]
    canvas = Image.new("RGB", (size[0] * FINER, size[1] * FINER), pick(draw, GROUNDS))
    pen = ImageDraw.Draw(canvas)
    for thing in (thing for thing in things if thing.shape):
        _draw_shape(pen, thing.shape, _pixels(thing, canvas.size), _shade(draw, thing.colour))
    return canvas.reduce(FINER), things


def kinds(draw: Draw, count: int) -> list[tuple[str, str]]:
    """`count` different pairs of colour and shape."""
    names = list(COLOURS)
    numbers = draw.permutation(len(names) * len(SHAPES))[:count]
    return [(names[int(number) % len(names)], SHAPES[int(number) // len(names)]) for number in numbers]


def left_to_right(things: Sequence[Thing]) -> list[Thing]:
    """The things in the order in which answers name them: by the middle."""
    return sorted(things, key=lambda thing: thing.box[0] + thing.box[2])


def _place(draw: Draw, size: tuple[int, int], kinds: Sequence[tuple[str, str]]) -> list[Thing]:
    boxes: list[tuple[float, float, float, float]] = []
    least, most = ALONE if len(kinds) == 1 else AMONG
    tries = 0
    while len(boxes) < len(kinds):
        tries += 1
        if tries > TRIES:
            boxes, tries, most = [], 0, max(least, most * 0.9)
        box = _box(draw, size, float(draw.uniform(least, most)))
        if all(_separate(box, other) for other in boxes):
            boxes.append(box)
    return [Thing(box, shape, colour) for box, (colour, shape) in zip(boxes, kinds, strict=True)]


def _box(draw: Draw, size: tuple[int, int], extent: float) -> tuple[float, float, float, float]:
    side = extent * min(size)
    width, height = side / size[0], side / size[1]
    left, top = float(draw.uniform(0.01, 0.99 - width)), float(draw.uniform(0.01, 0.99 - height))
    return left, top, left + width, top + height


def _separate(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return not _crossing(one, other) and abs(one[0] + one[2] - other[0] - other[2]) / 2 >= APART


def _crossing(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _pixels(thing: Thing, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = thing.box
    return left * size[0], top * size[1], right * size[0], bottom * size[1]


def _shade(draw: Draw, colour: str) -> tuple[int, ...]:
    return tuple(min(255, max(0, channel + int(draw.integers(-SHADE, SHADE + 1)))) for channel in COLOURS[colour])


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, box: tuple[float, float, float, float], fill: tuple[int, ...]
) -> None:
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "ring":
        pen.ellipse(box, outline=fill, width=max(3, round((box[2] - box[0]) * 0.2)))
    else:
        pen.polygon([_within(box, x, y) for x, y in _outline(shape)], fill=fill)


def _outline(shape: str) -> list[Point]:
    """Corners within the unit square."""
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "diamond":
        return [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]
    turns = [(math.pi * corner / 5, 0.5 if corner % 2 == 0 else 0.21) for corner in range(10)]
    return [(0.5 + radius * math.sin(turn), 0.5 - radius * math.cos(turn)) for turn, radius in turns]


def _within(box: tuple[float, float, float, float], x: float, y: float) -> Point:
    return box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])
