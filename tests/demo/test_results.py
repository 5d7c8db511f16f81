"""The page of results: what stands in its rows."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from gateway.demo import evaluation
from gateway.demo.evaluation import examine
from gateway.demo.exams import EXAMS, Exam
from gateway.demo.lessons.lesson import Lesson
from gateway.demo.results import page, row


def exam(name: str) -> Exam:
    return next(one for one in EXAMS if one.name == name)


class Knowing:
    """Answers everything right, but for the lessons of those numbers."""

    def __init__(self, *wrong: int) -> None:
        self.wrong, self.asked = wrong, 0

    def answer(self, lesson: Lesson, budget: int, quarter: bool) -> str:  # noqa: ARG002 - as all are asked
        self.asked += 1
        return "Nothing | `new`." if self.asked - 1 in self.wrong else lesson.answer


def cells(line: str) -> list[str]:
    """The cells of a row, in which a bar of the text is written with a backslash."""
    return [cell.strip().replace("¦", "\\|") for cell in line.replace("\\|", "¦").strip("|").split("|")]


def test_a_row_says_the_goal_what_was_reached_and_of_how_many() -> None:
    _, asked, goal, reached, lessons, _ = cells(row(examine(Knowing(1), exam("single"), 4)))
    assert (asked, goal, lessons) == ("one shape and its colour", "≥ 95% exact", "4")
    assert reached == "75.0% exact (missed)"


def test_a_row_about_boxes_says_how_well_they_overlap() -> None:
    assert cells(row(examine(Knowing(), exam("detect"), 3)))[3] == "100.0% exact, mean IoU 1.00, F1 1.00"


def test_a_row_shows_the_first_question_and_its_answer() -> None:
    result = examine(Knowing(), exam("pitch of up to 30 s"), 1)
    question, answer = cells(row(result))[5].split(" → ")
    assert question.startswith("`[audio] ")
    assert answer == f"`{result.lesson.answer}`"


def test_a_wrong_answer_is_shown_with_the_right_one_and_breaks_no_table() -> None:
    result = examine(Knowing(0), exam("single"), 1)
    assert cells(row(result))[5].endswith(f"→ `Nothing \\| 'new'.`, right: `{result.lesson.answer}`")


@pytest.mark.parametrize("name", [one.name for one in EXAMS])
def test_every_exam_fills_all_columns(name: str) -> None:
    filled = cells(row(examine(Knowing(), exam(name), 1)))
    assert len(filled) == 6
    assert all(filled)


def test_names_of_exams_tell_them_apart() -> None:
    named = [one.name for one in EXAMS if one.goal]
    assert len(named) == len(set(named))


def test_the_page_counts_the_goals_that_were_reached() -> None:
    results = [examine(Knowing(), exam("single"), 2), examine(Knowing(0), exam("count"), 2)]
    assert "through gateway and engine" in page(results, "through gateway and engine")
    assert "Goals reached: 1 of 2." in page(results, "")


def test_an_unknown_task_is_refused_with_those_that_there_are() -> None:
    done = CliRunner().invoke(evaluation.main, ["--url", "http://127.0.0.1:9/v1", "--only", "smell"])
    assert done.exit_code == 2
    assert "describe" in done.output
