"""The order of the lessons: stages from easy to hard, and what each is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from zlib import crc32

import numpy as np

from gateway.demo.lessons import hearing, reading, seeing, talking
from gateway.demo.lessons.lesson import Draw, Lesson, pick

#: Pixels of the side of the square that is one token of a picture.
CELL = 48
Grid = tuple[int, int]
"""Tokens of a picture, across and down."""

SEE: Mapping[str, Callable[[Draw, Grid], Lesson]] = {
    "single": seeing.single,
    "describe": seeing.describe,
    "count": seeing.count,
    "colour": seeing.colour,
    "colour_of_each": seeing.colour_of_each,
    "detect_single": seeing.detect_single,
    "detect": seeing.detect,
    "differ": seeing.differ,
    "which": seeing.which,
    "which_of_each": seeing.which_of_each,
    "digit": reading.digit,
    "digits": reading.digits,
    "word": reading.word,
    "line": reading.line,
    "huge": reading.huge,
    "small_text": reading.small_text,
}
HEAR: Mapping[str, Callable[[Draw, float], Lesson]] = {
    "key": hearing.key,
    "dialled": hearing.dialled,
    "transcribe": hearing.transcribe,
    "pitch": hearing.pitch,
    "beeps": hearing.beeps,
}
TALK: Mapping[str, Callable[[Draw], Lesson]] = {
    "greet": talking.greet,
    "about": talking.about,
    "beyond": talking.beyond,
    "copy": talking.copy,
    "counting": talking.counting,
    "sums": talking.sums,
    "json": talking.structure,
    "tool": talking.tool,
    "tool_answer": talking.tool_answer,
    "remember": talking.remember,
    "instructed": talking.instructed,
}
TOGETHER, CROWD = "together", "crowd"

QUARTER: tuple[Grid, ...] = ((4, 4),)
#: What budgets of 70 and 560 tokens make of common formats: square, 4:3, 3:4, 16:9.
AT_70: tuple[Grid, ...] = ((8, 8), (9, 7), (7, 9), (11, 6))
AT_560: tuple[Grid, ...] = ((23, 23), (27, 20))


class Split(IntEnum):
    """Lessons to learn from, and lessons never learnt from: their seeds differ."""

    TRAIN = 0
    HELD_OUT = 1


@dataclass(frozen=True)
class Course:
    """Some tasks that are taught in one batch, which has pictures of one size and sounds of one length."""

    tasks: tuple[str, ...]
    """A task that stands here twice comes twice as often."""
    count: int
    """Lessons of a batch."""
    grids: tuple[Grid, ...] = AT_70
    seconds: tuple[float, float] = (1.0, 3.0)
    within: Grid | None = None
    """The pictures are pieces, from anywhere, of pictures that large."""
    every: int = 1
    """It is taught in one of so many steps."""


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    until: float
    """The fraction of the whole training at which it ends."""
    courses: tuple[Course, ...]
    """One batch of each makes a step, of those that come `every` so many steps one in so many."""
    dense: float
    """The weight of what each patch and each frame shows, beside the answers."""

    def at(self, step: int) -> list[Course]:
        """The courses of that step."""
        return [course for at, course in enumerate(self.courses) if (step + at) % course.every == 0]


@dataclass(frozen=True)
class Taught:
    """The lessons of a batch, and what their pictures become."""

    lessons: list[Lesson]
    grid: Grid
    offset: Grid | None = None
    """Tokens to the left and above, if the pictures are pieces of larger ones."""


def lessons(course: Course, split: Split, number: int) -> Taught:
    """The batch of that number, always the same."""
    draw = np.random.default_rng([split, crc32(repr(course).encode()), number])
    grid = pick(draw, course.grids)
    seconds = round(float(draw.uniform(*course.seconds)), 2)
    taught = [lesson(pick(draw, course.tasks), draw, grid, seconds) for _ in range(course.count)]
    if course.within is None:
        return Taught(taught, grid)
    offset = [int(draw.integers(whole - part + 1)) for whole, part in zip(course.within, grid, strict=True)]
    return Taught(taught, grid, (offset[0], offset[1]))


def lesson(task: str, draw: Draw, grid: Grid, seconds: float) -> Lesson:
    """One lesson in a task. Raises KeyError for a task that there is not."""
    size = (grid[0] * CELL, grid[1] * CELL)
    if task == TOGETHER:
        return hearing.together(draw, size, seconds)
    if task == CROWD:
        return reading.crowd(draw, size)
    if task in SEE:
        return SEE[task](draw, size)
    return HEAR[task](draw, seconds) if task in HEAR else TALK[task](draw)


def stage(progress: float, stages: tuple[Stage, ...]) -> Stage:
    """The stage at that fraction of the training, 0 to 1."""
    return next((one for one in stages if progress < one.until), stages[-1])


_TALK = Course(("greet", "about", "copy", "copy", "counting", "sums", "sums", "json", "remember"), 16)
_MORE_TALK = Course((*_TALK.tasks, "beyond", "beyond", "instructed"), 16)
#: Apart from the rest: the declarations make long prompts.
_TOOLS = Course(("tool", "tool", "tool", "tool_answer"), 4)

#: One shape at a time, at a quarter of the least budget: the first thing to learn is where to look.
FIRST = (Stage("first", 1.0, (Course(("single",), 8, QUARTER),), dense=1.0),)

#: From shapes to sentences, boxes and sounds, at 70 tokens. Small batches: what counts here is the number of steps.
SHORT = (
    Stage(
        "names",
        0.30,
        (
            Course(("single", "single", "digit"), 12, QUARTER),
            Course(("key", "pitch"), 6, seconds=(0.6, 1.2)),
            replace(_TALK, count=6),
        ),
        dense=1.0,
    ),
    Stage(
        "several",
        0.70,
        (
            Course(("single", "describe", "describe", "count", "colour", "detect_single", "digits", "word"), 12),
            Course(("key", "dialled", "dialled", "pitch", "beeps"), 6, seconds=(1.0, 2.0)),
            Course(("differ", "which"), 3, QUARTER),
            replace(_MORE_TALK, count=8),
            replace(_TOOLS, count=2),
        ),
        dense=1.0,
    ),
    Stage(
        "boxes",
        1.0,
        (
            Course(("describe", "describe", "count", "colour", "detect", "detect", "detect", "digits", "word"), 12),
            Course(("dialled", "dialled", "pitch", "beeps"), 6, seconds=(1.0, 4.0)),
            Course(("differ", "which"), 4),
            Course((TOGETHER,), 3, seconds=(1.0, 2.5)),
            replace(_MORE_TALK, count=8),
            replace(_TOOLS, count=2),
        ),
        dense=0.5,
    ),
)

#: Lines of text, and pieces of pictures of 560 tokens: every place is seen at a tenth of the price.
STRIPS: tuple[Grid, ...] = ((8, 3), (9, 3), (6, 4), (5, 5), (11, 3))
PIECES: tuple[Grid, ...] = ((8, 4), (6, 6), (5, 7), (11, 3))
_PIECE_OF: Grid = (27, 23)
_FURTHER_TALK = Course(("greet", "about", "beyond", "instructed", "json", "remember", "counting", *["copy"] * 3), 12)
_CROWD = Course((CROWD,), 8, (*AT_70, (6, 6)))
_FURTHER = (
    Course((CROWD,), 6, PIECES, within=_PIECE_OF),
    Course(("describe", "describe", "count", "colour", "detect", "detect", "detect_single"), 10),
    Course(("describe", "describe", "count", *["colour"] * 4, "detect"), 8, ((6, 6), (7, 5), (5, 7))),
    Course(("line", "line", "line", "line", "digit"), 8, STRIPS),
    Course(("which", "which", "which", "differ"), 4, ((8, 8), (9, 7), (5, 5), (4, 5), (5, 4))),
    Course(("dialled", "dialled", "pitch", "beeps", "beeps", "beeps"), 6, seconds=(1.0, 4.0)),
    Course((TOGETHER,), 4, seconds=(1.0, 3.0), every=4),
    _FURTHER_TALK,
    Course(("sums",), 16),
    replace(_TOOLS, count=2, every=2),
)
#: Apart from the others: it is asked for in some 300 tokens.
_TRANSCRIBE = Course(("transcribe",), 2, seconds=(1.0, 4.0), every=2)
_LONG_CLIPS = Course(("dialled", "dialled", "beeps", "beeps", "pitch"), 2, seconds=(4.0, 30.0), every=2)
#: For a model that has been through `SHORT`: crowds of things to look at, text, longer clips, other budgets.
FURTHER = (
    Stage("crowds", 0.45, (_CROWD, *_FURTHER), dense=1.0),
    Stage(
        "texts",
        0.85,
        (
            _CROWD,
            *_FURTHER,
            Course(("digits", "word"), 6),
            Course(("line", "line", "huge"), 4, PIECES, within=_PIECE_OF),
            _LONG_CLIPS,
            _TRANSCRIBE,
        ),
        dense=0.7,
    ),
    Stage(
        "sizes",
        1.0,
        (
            *_FURTHER,
            Course(("digits", "word"), 6),
            Course(("line", "line", "huge"), 4, PIECES, within=_PIECE_OF),
            Course(("digits", "word", "small_text", "small_text"), 2, AT_560),
            _LONG_CLIPS,
            _TRANSCRIBE,
        ),
        dense=0.3,
    ),
)

_SMALL: tuple[Grid, ...] = ((4, 4), (5, 4), (4, 5), (5, 5))
_ASKED = (
    Course(("colour_of_each",), 12, _SMALL),
    Course(("which_of_each",), 6, _SMALL),
    Course(("detect", "detect", "detect_single"), 8, (*AT_70, (6, 6), (7, 5))),
)
_EDGES = (
    Course(("colour_of_each", "which_of_each"), 6, _SMALL),
    Course(("detect", "detect", "detect_single"), 14, ((8, 8), (9, 7), (8, 8), (9, 7), (6, 6))),
)
_BESIDE = (
    Course(("colour_of_each", "colour_of_each", "colour"), 4, (*AT_70, (6, 6))),
    Course(("which_of_each", "which"), 2, ((8, 8), (9, 7)), every=2),
    Course(("digits", "word", "word"), 6),
    Course(("line",), 6, STRIPS),
    Course((CROWD,), 4, AT_70, every=2),
    Course(("describe", "describe", "count"), 4, every=2),
    Course(("dialled", "dialled", "beeps"), 2, seconds=(4.0, 30.0), every=2),
    Course(("dialled", "beeps", "pitch"), 4, seconds=(1.0, 4.0), every=2),
    Course((TOGETHER, "differ"), 2, ((8, 8), (9, 7)), seconds=(1.0, 3.0), every=4),
    replace(_TRANSCRIBE, every=4),
    replace(_FURTHER_TALK, count=10),
    Course(("sums",), 12),
    replace(_TOOLS, count=2, every=4),
)
_BROAD: tuple[Grid, ...] = ((12, 10), (10, 12), (16, 7))
_TEXTS = ("digits", "word", "line", "huge")
#: For a model that has been through `FURTHER`: many questions on a picture, which teach it to look for what is asked.
LAST = (
    Stage("asking", 0.35, (*_ASKED, *_BESIDE), dense=1.0),
    Stage("edges", 0.75, (*_EDGES, *_BESIDE, Course(_TEXTS, 2, _BROAD, within=_PIECE_OF, every=2)), dense=1.0),
    Stage(
        "wide",
        1.0,
        (
            *_EDGES,
            *_BESIDE,
            Course(_TEXTS, 2, (*_BROAD, (16, 14), (23, 10)), within=_PIECE_OF),
            Course(("digits", "word", "small_text"), 2, AT_560, every=4),
        ),
        dense=0.5,
    ),
)

#: Sounds alone, for an audio tower: with all other weights held, what is seen and said stays as it is.
SOUNDS = (
    Stage(
        "sounds",
        1.0,
        (
            Course(("dialled", "dialled", "beeps", "pitch"), 8, seconds=(1.0, 4.0)),
            Course(("dialled", "dialled", "beeps"), 4, seconds=(4.0, 30.0)),
            Course(("transcribe",), 2, seconds=(1.0, 4.0)),
            Course((TOGETHER,), 2, ((8, 8), (9, 7)), seconds=(1.0, 3.0), every=4),
        ),
        dense=0.5,
    ),
)


def _in_turn(*parts: tuple[float, tuple[Stage, ...]]) -> tuple[Stage, ...]:
    """Schedules one after the other, each with its share of the time."""
    stages: list[Stage] = []
    for share, part in parts:
        before = stages[-1].until if stages else 0.0
        stages += [replace(one, until=before + share * one.until) for one in part]
    return tuple(stages)


FULL = _in_turn((0.3, SHORT), (0.4, FURTHER), (0.3, LAST))
SCHEDULES: Mapping[str, tuple[Stage, ...]] = {
    "full": FULL,
    "short": SHORT,
    "further": FURTHER,
    "last": LAST,
    "sounds": SOUNDS,
    "first": FIRST,
}
