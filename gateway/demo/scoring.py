"""Says how right an answer is: exact, or for boxes by how they overlap."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[str, tuple[float, ...]]
"""A label, and top, left, bottom and right."""
#: From this overlap on a box with the right label counts as found.
FOUND = 0.5


@dataclass(frozen=True)
class Score:
    """How well some answers to one task did. Fractions; IoU and F1 are None for tasks without boxes."""

    task: str
    answers: int
    exact: float
    mean_iou: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class Goal:
    """What a score has to be at least. Fractions; 0 where anything will do."""

    exact: float = 0.0
    mean_iou: float = 0.0
    f1: float = 0.0

    def __str__(self) -> str:
        told = (
            f"≥ {self.exact:.0%} exact" if self.exact else "",
            f"mean IoU ≥ {self.mean_iou:g}" if self.mean_iou else "",
            f"F1 ≥ {self.f1:g}" if self.f1 else "",
        )
        return ", ".join(filter(None, told))

    def reached_by(self, score: Score) -> bool:
        """Whether a score is that good."""
        boxes = (score.mean_iou or 0.0) >= self.mean_iou and (score.f1 or 0.0) >= self.f1
        return score.exact >= self.exact and boxes


def score(task: str, pairs: Sequence[tuple[str, str]]) -> Score:
    """The score of pairs of the right answer and the one given."""
    exact = sum(same(*pair) for pair in pairs) / len(pairs)
    if not task.startswith("detect"):
        return Score(task, len(pairs), exact)
    truths, founds = [boxes(truth) for truth, _ in pairs], [boxes(answer) for _, answer in pairs]
    overlaps = [match(truth, found) for truth, found in zip(truths, founds, strict=True)]
    every = [overlap for one in overlaps for overlap in one]
    hits = sum(overlap >= FOUND for overlap in every)
    possible = sum(map(len, truths)) + sum(map(len, founds))
    return Score(task, len(pairs), exact, sum(every) / max(1, len(every)), 2 * hits / max(1, possible))


def same(truth: str, answer: str) -> bool:
    """Whether they say the same but for spaces at the ends; JSON and tool calls by content."""
    if truth.startswith("{"):
        return _json(truth) == _json(answer)
    return truth.strip() == answer.strip()


def boxes(answer: str) -> list[Box]:
    """Labels and boxes of an answer, its block of JSON or all of it; none if it is not such JSON."""
    block = re.search(r"```json\n(.*?)\n```", answer, re.DOTALL)
    found = _json(block[1] if block else answer)
    entries = found if isinstance(found, list) else []
    return [
        (str(entry.get("label")), tuple(map(float, entry["box_2d"])))
        for entry in entries
        if isinstance(entry, dict) and _is_box(entry.get("box_2d"))
    ]


def match(truth: Sequence[Box], found: Sequence[Box]) -> list[float]:
    """For each true box the overlap of the best found one of the same label, each used once; 0 where there is none."""
    free, overlaps = list(found), []
    for label, box in truth:
        best = max((one for one in free if one[0] == label), key=lambda one: overlap(box, one[1]), default=None)
        overlaps.append(overlap(box, best[1]) if best else 0.0)
        if best:
            free.remove(best)
    return overlaps


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    height = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    width = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = _area(one) + _area(other) - height * width
    return height * width / union if union > 0 else 0.0


def _area(box: tuple[float, ...]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(edge, int | float) for edge in value)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
