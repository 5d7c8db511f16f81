"""The held-out lessons that the model is examined in, and what it has to reach in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.demo.lessons.curriculum import QUARTER, TALK, TOGETHER, Grid, Split, lesson
from gateway.demo.lessons.lesson import Lesson, pick
from gateway.demo.scoring import Goal


@dataclass(frozen=True)
class Exam:
    """Lessons of one task at one budget."""

    task: str
    says: str
    """What it asks for."""
    goal: Goal | None
    """What the score has to be; None where it is only reported."""
    budget: int = 70
    """Tokens of a picture at most."""
    grids: tuple[Grid, ...] = ((8, 8), (9, 7))
    """Sizes of the pictures that are sent, in squares of 48 pixels."""
    seconds: tuple[float, float] = (1.0, 3.0)

    @property
    def name(self) -> str:
        """The task, with the budget or the length where those are not the least."""
        at = "" if self.budget == 70 else f" at {self.budget}"
        return f"{self.task}{at}{' of up to 30 s' if self.seconds == _LONG else ''}"

    def lessons(self, count: int) -> list[Lesson]:
        """The first `count` held-out lessons."""
        return [self._lesson(number) for number in range(count)]

    def _lesson(self, number: int) -> Lesson:
        draw = np.random.default_rng([Split.HELD_OUT, self.budget, int(self.seconds[1]), *self.task.encode(), number])
        return lesson(self.task, draw, pick(draw, self.grids), round(float(draw.uniform(*self.seconds)), 2))


_LARGE: tuple[Grid, ...] = ((23, 23), (27, 20))
_SHORT, _LONG = (1.0, 4.0), (4.0, 30.0)
_EXACT = Goal(exact=0.95)
_TITLES: Mapping[str, str] = {
    "greet": "greetings and thanks",
    "about": "what it is and can do",
    "beyond": "an honest no",
    "copy": "copying",
    "counting": "counting",
    "sums": "sums and differences to 20",
    "json": "a JSON object",
    "tool": "a tool call",
    "tool_answer": "a tool's answer in words",
    "remember": "several turns",
    "instructed": "a system message",
}
EXAMS: tuple[Exam, ...] = (
    Exam("single", "one shape and its colour", _EXACT),
    Exam("describe", "one to four shapes", _EXACT),
    Exam("count", "how many shapes", _EXACT),
    Exam("colour", "the colour of a shape", _EXACT),
    Exam("detect", "boxes of one to three shapes", Goal(mean_iou=0.7, f1=0.9)),
    Exam("digits", "large digits", _EXACT),
    Exam("word", "large letters", _EXACT),
    Exam("digits", "large digits", _EXACT, 560, _LARGE),
    Exam("word", "large letters", _EXACT, 560, _LARGE),
    Exam("small_text", "small text, many tokens", _EXACT, 560, _LARGE),
    Exam("small_text", "small text, few tokens: not to be read", None, 70, _LARGE),
    Exam("differ", "what differs between two pictures", _EXACT),
    Exam("which", "which picture has it", _EXACT),
    *(
        Exam(task, title, _EXACT, seconds=seconds)
        for seconds in (_SHORT, _LONG)
        for task, title in (
            ("dialled", "dialled numbers"),
            ("pitch", "high, low, rising, falling"),
            ("beeps", "how many beeps"),
        )
    ),
    Exam("transcribe", "a recording as text", _EXACT, seconds=_SHORT),
    Exam(TOGETHER, "a picture and a sound", _EXACT),
    *(Exam(task, _TITLES[task], _EXACT) for task in TALK),
)
#: For a first look: what the schedule `first` teaches, at its size.
QUICK = (Exam("single", "one shape and its colour", _EXACT, grids=QUARTER),)
