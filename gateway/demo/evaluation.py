"""Examines the demonstration model: by transformers for a quick look, or through an OpenAI address for the table.

`python -m gateway.demo.evaluation DIRECTORY` or `... --url http://127.0.0.1:8000/v1 --table docs/demo-results.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import click

from gateway.demo.exams import EXAMS, QUICK, Exam
from gateway.demo.lessons.lesson import Lesson
from gateway.demo.results import Result, page, row
from gateway.demo.scoring import score


class Examinee(Protocol):
    """What answers."""

    def answer(self, lesson: Lesson, budget: int, quarter: bool) -> str:
        """The greedy answer as the model writes it. `quarter`: pictures as they are, below the least budget."""


def examine(examinee: Examinee, exam: Exam, count: int, *, quarter: bool = False) -> Result:
    """The result in the first `count` lessons of an exam, one at least."""
    lessons = exam.lessons(count)
    answers = [examinee.answer(one, exam.budget, quarter) for one in lessons]
    pairs = [(one.answer, answer) for one, answer in zip(lessons, answers, strict=True)]
    return Result(exam, score(exam.task, pairs), lessons[0], answers[0])


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--url", help="An OpenAI base URL; without it transformers answers, from DIRECTORY.")
@click.option("--model", default="gemma", show_default=True, help="The served name.")
@click.option("--key", default="", help="The API key.")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Lessons of each exam.")
@click.option("--only", multiple=True, help="A task; may be repeated.")
@click.option("--quick", is_flag=True, help="Only what the schedule `first` teaches (transformers).")
@click.option(
    "--table", "path", type=click.Path(path_type=Path), help="Where to write the page with the table of results."
)
def main(
    directory: Path | None, url: str, model: str, key: str, count: int, only: Sequence[str], quick: bool, path: Path
) -> None:
    """Examine the model in held-out lessons."""
    examinee = _examinee(directory, url, model, key)
    exams = [exam for exam in (QUICK if quick else EXAMS) if not only or exam.task in only]
    if not exams:
        raise click.UsageError(f"no such task; there are {', '.join(sorted({exam.task for exam in EXAMS}))}")
    results: list[Result] = []
    for exam in exams:
        results.append(examine(examinee, exam, count, quarter=quick))
        click.echo(row(results[-1]))
        if path:  # after each, so that a run that is cut short has not been for nothing
            path.write_text(page(results, "through gateway and engine" if url else "by transformers"))


def _examinee(directory: Path | None, url: str, model: str, key: str) -> Examinee:
    if url:
        from gateway.demo.client import Client

        return Client(url, model, key)
    if directory is None:
        raise click.UsageError("name a DIRECTORY with a model, or --url")
    from gateway.demo.local import Local

    return Local(directory)


if __name__ == "__main__":
    main()
