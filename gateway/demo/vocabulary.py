"""The tokenizer of the demonstration model: Gemma 4's structure, in which each word of the lessons is one token.

A text is cut into words (with the space before them), digits, signs and a few fixed strings of JSON. What is in the
vocabulary is one token; all else is spelled in characters, and those in bytes. Digits are tokens of their own:
coordinates take up to three, but each digit is seen often enough to be learnt, and a number never seen can be written.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from gateway.demo.lessons.curriculum import HEAR, QUARTER, SEE, TALK, TOGETHER, lesson
from gateway.demo.lessons.lesson import Lesson
from gateway.demo.tokenizer import (
    CONTROL,
    FIRST_NEWLINE,
    GEMMA4_MARKERS,
    GEMMA4_MEDIA,
    NEWLINE_RUNS,
    VISIBLE,
    WORDS,
    Tokenizer,
)

#: Between the numbers of a box, between its parts, and around all boxes: one token each.
FIXED = ('[{"box_2d": [', '], "label": "', '"}, {"box_2d": [', '"}]', "```json\n", "\n```")
FIXED_TOKENS = (*(text.replace(" ", "▁") for text in FIXED), ",▁")
#: The cuts, best first. A comma keeps the space after it only before a digit: elsewhere the space is the word's.
CUTS = "|".join((*map(re.escape, FIXED_TOKENS[:-1]), r",▁(?=\d)", "▁?[A-Za-z]+", r"\d", r"\n+", "▁", r"[^▁\n\dA-Za-z]"))
LIST = "lessons/words.txt"
#: What comes less often in thousands of lessons is no word.
OFTEN = 8


def build() -> Tokenizer:
    """The vocabulary: control tokens and markers at their released ids, then characters, fixed strings, words."""
    placed = {token: index for index, token in enumerate(CONTROL)} | GEMMA4_MARKERS
    by_index = {index: token for token, index in placed.items()}
    low = [by_index.get(index, f"<unused{index}>") for index in range(FIRST_NEWLINE)]
    newlines = ["\n" * count for count in range(1, NEWLINE_RUNS + 1)]
    signs = [*(f"<0x{byte:02X}>" for byte in range(256)), *VISIBLE]
    tokens = dict.fromkeys([*low, *newlines, *GEMMA4_MEDIA.values(), *signs, *FIXED_TOKENS, *listed()])
    special = frozenset((*placed, *GEMMA4_MEDIA.values()))
    merges = (("\n", "\n"), ("\n\n", "\n"), ("\n\n", "\n\n"))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return Tokenizer(vocabulary, merges, special, frozenset(low) - special, GEMMA4_MEDIA)


def write(directory: Path) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json; returns the vocabulary."""
    words = build()
    words.write(directory)
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    document["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": CUTS},
        "behavior": "Isolated",
        "invert": False,
    }
    document["model"]["ignore_merges"] = True  # a cut that is in the vocabulary is one token
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    return words


def listed() -> list[str]:
    """The words of the list that comes with the package, with and without the space before them."""
    return (files("gateway.demo") / LIST).read_text().split()


def words_of(lessons: Iterable[Lesson]) -> set[str]:
    """The words of the lessons as they are cut, but for runs of capitals and chance letters, which are spelled."""
    texts = (text for lesson in lessons for text in _texts(lesson))
    words = Counter(cut for text in texts for cut in re.findall("▁?[A-Za-z]+", text.replace(" ", "▁")))
    return {word for word, times in words.items() if times >= OFTEN and len(word) > 1 and not _spelled(word)}


def write_list(path: Path) -> None:
    """Writes the list anew from some ten thousand lessons.

    All ids after the first difference move: weights trained before are lost.
    """
    words = words_of(_survey()) | {f"▁{word}" for word in WORDS.split()}
    path.write_text("\n".join(sorted(words)) + "\n")


def _survey() -> Iterator[Lesson]:
    draw = np.random.default_rng(1)
    for task in (*TALK, *SEE, *HEAR, TOGETHER):
        for _ in range(3000 if task in TALK else 150):
            yield lesson(task, draw, QUARTER[0], 2.0)


def _spelled(word: str) -> bool:
    letters = word.lstrip("▁")
    return len(letters) > 1 and letters.isupper() and letters != "JSON"


def _texts(lesson: Lesson) -> Iterator[str]:
    yield lesson.answer
    yield json.dumps(lesson.tools)
    for message in lesson.messages:
        content = message["content"] or ""
        yield from [content] if isinstance(content, str) else (part.get("text", "") for part in content)
