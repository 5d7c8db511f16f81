"""The page that tells how the model did in its examination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.demo.exams import Exam
from gateway.demo.lessons.lesson import Lesson
from gateway.demo.scoring import Score, same

HEAD = "| task | what is asked | goal | reached | lessons | the first of them |\n|---|---|---|---|---|---|\n"
#: Characters of a text that an example shows.
SHOWN = 160


@dataclass(frozen=True)
class Result:
    """How one exam went, with its first lesson and the answer to it as an example."""

    exam: Exam
    score: Score
    lesson: Lesson
    answer: str


def page(results: Sequence[Result], source: str) -> str:
    """The whole page in Markdown; `source` says who answered, and how it was asked."""
    met = [result.exam.goal.reached_by(result.score) for result in results if result.exam.goal]
    return (
        "# What the demonstration model can do\n\n"
        f"Greedy answers to held-out lessons, {source}. Written by `gateway.demo.evaluation`; what the model is\n"
        f"and how it is judged stands in [demo-model.md](demo-model.md). Goals reached: {sum(met)} of {len(met)}.\n\n"
        f"{table(results)}"
    )


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown."""
    return HEAD + "".join(f"{row(result)}\n" for result in results)


def row(result: Result) -> str:
    """One line of the table."""
    exam, score = result.exam, result.score
    goal = str(exam.goal) if exam.goal else "none"
    cells = (exam.name, exam.says, goal, _reached(result), str(score.answers), _example(result))
    return f"| {' | '.join(cells)} |"


def _reached(result: Result) -> str:
    score, goal = result.score, result.exam.goal
    boxes = "" if score.mean_iou is None else f", mean IoU {score.mean_iou:.2f}, F1 {score.f1:.2f}"
    verdict = "" if goal is None or goal.reached_by(score) else " (missed)"
    return f"{score.exact:.1%} exact{boxes}{verdict}"


def _example(result: Result) -> str:
    lesson, answer = result.lesson, result.answer
    wrong = "" if same(lesson.answer, answer) else f", right: {_code(lesson.answer)}"
    return f"{_code(_question(lesson))} → {_code(answer)}{wrong}"


def _question(lesson: Lesson) -> str:
    """The last that the lesson's user says, with a word for each picture and clip."""
    content = next(m["content"] for m in reversed(lesson.messages) if m["role"] == "user")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return " ".join(part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in parts)


def _code(text: str) -> str:
    """Text as a cell of a table shows it."""
    line = " ".join(text.replace("`", "'").split())
    short = line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
    escaped = short.replace("|", r"\|")
    return f"`{escaped or ' '}`"
