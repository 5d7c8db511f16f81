"""How answers of the demonstration model are judged."""

from __future__ import annotations

import pytest

from gateway.demo.scoring import Goal, boxes, overlap, same, score


def block(*entries: tuple[list[int], str]) -> str:
    inner = ", ".join(f'{{"box_2d": {box}, "label": "{label}"}}' for box, label in entries)
    return f"```json\n[{inner}]\n```"


RED = ([0, 0, 100, 100], "red circle")
BLUE = ([500, 500, 700, 700], "blue star")


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        ("A red circle.", " A red circle.\n", True),
        ("A red circle.", "A red square.", False),
        ('{"name": "Ida", "age": 3}', '{"age": 3, "name": "Ida"}', True),
        ('{"name": "Ida"}', "Ida", False),
    ],
)
def test_answers_are_the_same_but_for_spaces_and_the_order_of_json(truth: str, answer: str, expected: bool) -> None:
    assert same(truth, answer) is expected


def test_the_right_boxes_score_one() -> None:
    result = score("detect", [(block(RED, BLUE), block(BLUE, RED))])
    assert (result.mean_iou, result.f1) == (1.0, 1.0)


def test_a_box_of_another_label_is_a_miss_and_a_false_find() -> None:
    result = score("detect", [(block(RED), block(([0, 0, 100, 100], "green circle")))])
    assert (result.mean_iou, result.f1) == (0.0, 0.0)


def test_a_missing_box_counts_against_both_measures() -> None:
    result = score("detect", [(block(RED, BLUE), block(RED))])
    assert result.mean_iou == 0.5
    assert result.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer", ["", "no boxes", "```json\n[{]\n```", '{"box_2d": [1, 2]}', '[{"box_2d": [1, 2]}]'])
def test_what_is_no_list_of_boxes_has_none(answer: str) -> None:
    assert boxes(answer) == []


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 10, 10), (0, 5, 10, 15)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 20, 30, 30)) == 0


@pytest.mark.parametrize(("right", "reached"), [(19, True), (18, False)])
def test_a_goal_is_reached_at_its_share_of_right_answers(right: int, reached: bool) -> None:
    pairs = [("A", "A")] * right + [("A", "B")] * (20 - right)
    assert Goal(exact=0.95).reached_by(score("single", pairs)) is reached


def test_a_goal_of_boxes_is_reached_by_overlap_however_the_answer_is_written() -> None:
    goal = Goal(mean_iou=0.7, f1=0.9)
    assert goal.reached_by(score("detect", [(block(RED, BLUE), block(BLUE, RED))]))
    assert not goal.reached_by(score("detect", [(block(RED, BLUE), block(RED))]))
    assert not goal.reached_by(score("single", [("A", "A")]))


@pytest.mark.parametrize(
    ("goal", "text"), [(Goal(exact=0.95), "≥ 95% exact"), (Goal(mean_iou=0.7, f1=0.9), "mean IoU ≥ 0.7, F1 ≥ 0.9")]
)
def test_a_goal_says_what_it_asks_for(goal: Goal, text: str) -> None:
    assert str(goal) == text
