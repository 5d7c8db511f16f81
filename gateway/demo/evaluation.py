"""Examines the demonstration model: by transformers for a quick look, or through an OpenAI address for the table.

`python -m gateway.demo.evaluation DIRECTORY` or `... --url http://127.0.0.1:8000/v1 --table docs/demo-results.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import click

from gateway.demo.exams import EXAMS, QUICK, Exam, table
from gateway.demo.lessons.lesson import Lesson
from gateway.demo.scoring import Score, score


class Examinee(Protocol):
    """What answers."""

    def answer(self, lesson: Lesson, budget: int, quarter: bool) -> str:
        """The greedy answer as the model writes it. `quarter`: pictures as they are, below the least budget."""


def examine(examinee: Examinee, exam: Exam, count: int, *, quarter: bool = False) -> Score:
    """The score of the first `count` lessons of an exam."""
    lessons = exam.lessons(count)
    return score(exam.task, [(one.answer, examinee.answer(one, exam.budget, quarter)) for one in lessons])


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--url", help="An OpenAI base URL; without it transformers answers, from DIRECTORY.")
@click.option("--model", default="gemma", show_default=True, help="The served name.")
@click.option("--key", default="", help="The API key.")
@click.option("--count", type=int, default=100, show_default=True, help="Lessons of each exam.")
@click.option("--only", multiple=True, help="A task; may be repeated.")
@click.option("--quick", is_flag=True, help="Only what the schedule `first` teaches (transformers).")
@click.option("--table", "path", type=click.Path(path_type=Path), help="Where to write the table.")
def main(
    directory: Path | None, url: str, model: str, key: str, count: int, only: Sequence[str], quick: bool, path: Path
) -> None:
    """Examine the model in held-out lessons."""
    examinee = _examinee(directory, url, model, key)
    results = []
    for exam in QUICK if quick else EXAMS:
        if not only or exam.task in only:
            results.append((exam, examine(examinee, exam, count, quarter=quick)))
            click.echo(table(results[-1:]).splitlines()[-1])
    if path:
        path.write_text(table(results))


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
