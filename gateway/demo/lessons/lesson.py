"""The record of one lesson: a conversation, what it shows, and the answer that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Draw = np.random.Generator
Item = TypeVar("Item")
Part = Mapping[str, Any]
Message = Mapping[str, Any]

#: Ends an answer, and an answer that is a tool call.
TURN_END, CALL_END = "<turn|>", "<|tool_response>"
IMAGE: Part = {"type": "image"}
AUDIO: Part = {"type": "audio"}


@dataclass(frozen=True)
class Thing:
    """Something to be seen."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom as fractions of the picture."""
    shape: str = ""
    colour: str = ""
    glyph: str = ""
    """The character, if the thing is one."""


@dataclass(frozen=True)
class Picture:
    """A picture and all that is in it."""

    image: Image.Image
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Span:
    """Something to be heard, from `start` to `end` in seconds."""

    start: float
    end: float
    tone: str


@dataclass(frozen=True)
class Clip:
    """Sound at 16 kHz, float32 within ±1, and all that is in it."""

    samples: NDArray[np.float32]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Lesson:
    """A conversation up to the answer, and the answer as the model writes it."""

    task: str
    messages: tuple[Message, ...]
    answer: str
    pictures: tuple[Picture, ...] = ()
    clips: tuple[Clip, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    end: str = TURN_END
    each: bool = False
    """Whether what the model says in the conversation is to be learnt as well."""


def user(*parts: Part | str) -> Message:
    """A user's turn of texts and media."""
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def assistant(text: str) -> Message:
    """What the model said before."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def system(text: str) -> Message:
    """An instruction for the whole conversation."""
    return {"role": "system", "content": [{"type": "text", "text": text}]}


def pick(draw: Draw, items: Sequence[Item]) -> Item:
    """One of the items."""
    return items[int(draw.integers(len(items)))]


def sample(draw: Draw, items: Sequence[Item], count: int) -> list[Item]:
    """`count` different ones of the items, in any order."""
    return [items[int(index)] for index in draw.permutation(len(items))[:count]]
