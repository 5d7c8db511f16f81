"""The held-out lessons that the model is examined in, and the table of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.demo.lessons.curriculum import HEAR, QUARTER, TALK, TOGETHER, Grid, Split, lesson
from gateway.demo.lessons.lesson import Lesson, pick
from gateway.demo.scoring import Score


@dataclass(frozen=True)
class Exam:
    """Lessons of one task at one budget."""

    task: str
    says: str
    """What it asks for."""
    goal: str
    """What the score has to be; empty where it is only reported."""
    budget: int = 70
    """Tokens of a picture at most."""
    grids: tuple[Grid, ...] = ((8, 8), (9, 7))
    """Sizes of the pictures that are sent, in squares of 48 pixels."""
    seconds: tuple[float, float] = (1.0, 3.0)

    @property
    def name(self) -> str:
        """The task, with the budget where that is not the least."""
        return self.task if self.budget == 70 else f"{self.task} at {self.budget}"

    def lessons(self, count: int) -> list[Lesson]:
        """The first `count` held-out lessons."""
        return [self._lesson(number) for number in range(count)]

    def _lesson(self, number: int) -> Lesson:
        draw = np.random.default_rng([Split.HELD_OUT, self.budget, *self.task.encode(), number])
        return lesson(self.task, draw, pick(draw, self.grids), round(float(draw.uniform(*self.seconds)), 2))


_LARGE: tuple[Grid, ...] = ((23, 23), (27, 20))
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
    Exam("single", "one shape and its colour", "≥ 95 % exact"),
    Exam("describe", "one to four shapes", "≥ 95 % exact"),
    Exam("count", "how many shapes", "≥ 95 % exact"),
    Exam("colour", "the colour of a shape", "≥ 95 % exact"),
    Exam("detect", "boxes of one to three shapes", "IoU ≥ 0.7, F1 ≥ 0.9"),
    Exam("digits", "large digits", "≥ 95 % exact"),
    Exam("word", "large letters", "≥ 95 % exact"),
    Exam("digits", "large digits", "≥ 95 % exact", 560, _LARGE),
    Exam("word", "large letters", "≥ 95 % exact", 560, _LARGE),
    Exam("small_text", "small text, many tokens", "≥ 95 % exact", 560, _LARGE),
    Exam("small_text", "small text, few tokens: not to be read", "", 70, _LARGE),
    Exam("differ", "what differs between two pictures", "≥ 95 % exact"),
    Exam("which", "which picture has it", "≥ 95 % exact"),
    Exam("dialled", "dialled numbers", "≥ 95 % exact", seconds=(1.0, 30.0)),
    Exam("pitch", "high, low, rising, falling", "≥ 95 % exact", seconds=(1.0, 30.0)),
    Exam("beeps", "how many beeps", "≥ 95 % exact", seconds=(1.0, 30.0)),
    Exam(TOGETHER, "a picture and a sound", "≥ 95 % exact"),
    *(Exam(task, _TITLES[task], "≥ 95 % exact") for task in TALK),
)
#: For a first look: what the schedule `first` teaches, at its size.
QUICK = (Exam("single", "one shape and its colour", "≥ 95 % exact", grids=QUARTER),)
HEARD = frozenset((*HEAR, TOGETHER))


def table(results: Sequence[tuple[Exam, Score]]) -> str:
    """The results in Markdown."""
    head = "| task | what is asked | lessons | exact | mean IoU | F1 at 0.5 | goal |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(f"{_row(exam, result)}\n" for exam, result in results)


def _row(exam: Exam, result: Score) -> str:
    iou, f1 = (f"{value:.3f}" if value is not None else "" for value in (result.mean_iou, result.f1))
    cells = (exam.name, exam.says, str(result.answers), f"{result.exact:.1%}", iou, f1, exam.goal)
    return f"| {' | '.join(cells)} |"
