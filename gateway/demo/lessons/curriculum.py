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
    "detect_single": seeing.detect_single,
    "detect": seeing.detect,
    "differ": seeing.differ,
    "which": seeing.which,
    "digit": reading.digit,
    "digits": reading.digits,
    "word": reading.word,
    "small_text": reading.small_text,
}
HEAR: Mapping[str, Callable[[Draw, float], Lesson]] = {
    "key": hearing.key,
    "dialled": hearing.dialled,
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
TOGETHER = "together"

QUARTER: tuple[Grid, ...] = ((4, 4),)
#: What budgets of 70, 140, 280 and 560 tokens make of common formats: square, 4:3, 3:4, 16:9.
AT_70: tuple[Grid, ...] = ((8, 8), (9, 7), (7, 9), (11, 6))
AT_140: tuple[Grid, ...] = ((11, 11), (13, 10), (10, 13))
AT_280: tuple[Grid, ...] = ((16, 16), (19, 14), (14, 19))
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


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    until: float
    """The fraction of the whole training at which it ends."""
    courses: tuple[Course, ...]
    """One batch of each makes a step."""
    dense: float
    """The weight of what each patch and each frame shows, beside the answers."""


def lessons(course: Course, split: Split, number: int) -> tuple[list[Lesson], Grid]:
    """The batch of that number, always the same, and what its pictures become."""
    draw = np.random.default_rng([split, crc32(repr(course).encode()), number])
    grid = pick(draw, course.grids)
    seconds = round(float(draw.uniform(*course.seconds)), 2)
    return [lesson(pick(draw, course.tasks), draw, grid, seconds) for _ in range(course.count)], grid


def lesson(task: str, draw: Draw, grid: Grid, seconds: float) -> Lesson:
    """One lesson in a task. Raises KeyError for a task that there is not."""
    size = (grid[0] * CELL, grid[1] * CELL)
    if task == TOGETHER:
        return hearing.together(draw, size, seconds)
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

#: The whole schedule.
FULL = (
    Stage(
        "names",
        0.10,
        (
            # Small batches: what counts here is the number of steps.
            Course(("single", "single", "digit"), 16, QUARTER),
            Course(("key", "pitch"), 8, seconds=(0.6, 1.2)),
            replace(_TALK, count=8),
        ),
        dense=1.0,
    ),
    Stage(
        "several",
        0.35,
        (
            Course(("single", "describe", "describe", "count", "colour", "detect_single", "digits", "word"), 24),
            Course(("key", "dialled", "dialled", "pitch", "beeps"), 16, seconds=(1.0, 2.5)),
            Course(("differ", "which"), 6, QUARTER),
            _MORE_TALK,
            _TOOLS,
        ),
        dense=1.0,
    ),
    Stage(
        "boxes",
        0.70,
        (
            Course(("describe", "describe", "count", "colour", "detect", "detect", "detect", "digits", "word"), 24),
            Course(("dialled", "dialled", "pitch", "beeps"), 12, seconds=(1.0, 6.0)),
            Course(("differ", "which"), 8),
            Course((TOGETHER,), 6, seconds=(1.0, 3.0)),
            _MORE_TALK,
            _TOOLS,
        ),
        dense=0.5,
    ),
    Stage(
        "sizes",
        1.0,
        (
            Course(("describe", "colour", "detect", "detect", "digits", "word"), 20),
            Course(("describe", "detect", "digits", "word"), 6, AT_140 + AT_280),
            Course(("small_text", "small_text", "digits", "word"), 3, AT_560),
            Course(("dialled", "pitch", "beeps"), 6, seconds=(2.0, 30.0)),
            Course(("differ", "which"), 6),
            Course((TOGETHER,), 4, seconds=(1.0, 6.0)),
            _MORE_TALK,
            _TOOLS,
        ),
        dense=0.1,
    ),
)

#: The same in two hours of two cores: smaller batches, so that there are as many steps, and one budget.
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
SCHEDULES: Mapping[str, tuple[Stage, ...]] = {"full": FULL, "short": SHORT, "first": FIRST}
