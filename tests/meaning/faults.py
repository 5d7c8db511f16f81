"""Held-out pictures and clips, each whole and as a chain with one fault would hand it to the model.

What is judged of an answer are its colours and digits, in order: all that the faults change, and the easiest to learn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import soxr
from PIL import Image

from gateway.demo.lessons.curriculum import CELL, Split, lesson
from gateway.demo.lessons.lesson import Draw, Lesson, Thing, pick
from gateway.demo.lessons.scenes import COLOURS, kinds, left_to_right, paint
from gateway.demo.lessons.seeing import DESCRIBE
from gateway.demo.lessons.tones import RATE
from tests.engine.media import Samples, audio_part, data_url, image_part, text_part, wav

Part = dict[str, object]
Gist = tuple[str, ...]
"""The colours and digits of an answer, in order."""

#: 63 tokens of the 70 that the model spends on a picture; wider than high, so that a turned one has another form.
GRID = (9, 7)
#: Seconds of a clip with two keys of a telephone, the fewest that are dialled to the last stage of the training.
SECONDS, KEYS = 1.0, 2
#: Sample rates (Hz) that clips come at in practice, other than the 16,000 that the model hears.
RATES = (8_000, 22_050, 44_100, 48_000)
#: How loud the channel is that has no sound: a microphone's own noise. Of pure silence the gateway asks nothing.
HISS = 0.002
#: Look the same turned by a quarter and by a half.
ROUND = ("circle", "square", "diamond", "ring")
#: How far apart two things are at least, top to bottom, whose order shows which way up the picture is (fraction).
APART = 0.1
#: EXIF's tag 274: what has to be done to show the picture upright, and what was done to it before it was saved.
ORIENTATION = 274
TURNED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Case:
    """One question with its media whole and broken, its right answer, and what the broken one has to be answered."""

    whole: list[Part]
    broken: list[Part]
    answer: Gist
    mistaken: Gist = ()
    """Empty where the fault leaves nothing to be named: then any other answer will do."""


def gist(answer: str) -> Gist:
    """What is judged of an answer."""
    return tuple(re.findall(rf"\b(?:{'|'.join(COLOURS)})\b|\d", answer.lower()))


def turned(number: int) -> list[Case]:
    """Two things side by side, saved turned with the orientation in EXIF. Broken: the tag is not heeded.

    The turn is one by which the thing on the left comes to stand on the right.
    """
    return list(islice(_turned(_draw(1)), number))


def _turned(draw: Draw) -> Iterator[Case]:
    while True:
        picture = paint(draw, (GRID[0] * CELL, GRID[1] * CELL), kinds(draw, 2))
        left, right = left_to_right(picture.things)
        if left.colour == right.colour or not {left.shape, right.shape} <= set(ROUND):
            continue
        orientation = _that_swaps(left, right)
        saved = picture.image.transpose(TURNED[orientation])
        question = text_part(pick(draw, DESCRIBE))
        yield Case(
            [_jpeg(saved, orientation), question],
            [_jpeg(saved, None), question],
            answer=(left.colour, right.colour),
            mistaken=(right.colour, left.colour),
        )


def _that_swaps(left: Thing, right: Thing) -> int:
    """The orientation as which the picture has to be saved for the two to stand there in the other order."""
    lower = _middle(left) - _middle(right)
    if abs(lower) < APART:
        return 3
    return 6 if lower > 0 else 8


def _middle(thing: Thing) -> float:
    return (thing.box[1] + thing.box[3]) / 2


def _jpeg(image: Image.Image, orientation: int | None) -> Part:
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, exif=exif)
    return {"type": "image_url", "image_url": {"url": data_url(file.getvalue(), "image/jpeg")}}


def recoloured(number: int) -> list[Case]:
    """A red or a blue thing. Broken: blue, green, red are taken for red, green, blue."""
    taught = (one for one in _lessons("single", 2) if _colours(one)[0] in ("red", "blue"))
    return [_recoloured(one) for one in islice(taught, number)]


def _recoloured(taught: Lesson) -> Case:
    image = taught.pictures[0].image
    swapped = Image.merge("RGB", image.split()[::-1])
    answer = _colours(taught)
    mistaken = ("blue",) if answer == ("red",) else ("red",)
    question = _question(taught)
    return Case([image_part(image), question], [image_part(swapped), question], answer, mistaken)


def resampled(number: int) -> list[Case]:
    """A dialled number at another rate. Broken: the samples are taken for samples at 16 kHz."""
    return [_resampled(one, RATES[at % len(RATES)]) for at, one in enumerate(islice(_dialled(3), number))]


def _dialled(series: int) -> Iterator[Lesson]:
    return (one for one in _lessons("dialled", series) if len(one.answer) == KEYS)


def _resampled(taught: Lesson, rate: int) -> Case:
    samples = soxr.resample(taught.clips[0].samples, RATE, rate)
    sent, broken = (audio_part(wav(samples, header, "PCM_16")) for header in (rate, RATE))
    return Case([sent, _question(taught)], [broken, _question(taught)], gist(taught.answer))


def one_sided(number: int) -> list[Case]:
    """A dialled number on one channel of two by turns. Broken: that channel is dropped."""
    draw = _draw(4)
    return [_one_sided(one, at % 2, draw) for at, one in enumerate(islice(_dialled(5), number))]


def _one_sided(taught: Lesson, side: int, draw: Draw) -> Case:
    heard: Samples = 0.9 * taught.clips[0].samples / np.abs(taught.clips[0].samples).max()
    hiss = draw.normal(0, HISS, heard.shape).astype(np.float32)
    both = np.stack([heard, hiss] if side == 0 else [hiss, heard], -1)
    question = _question(taught)
    return Case(
        [audio_part(wav(both, RATE, "PCM_16")), question],
        [audio_part(wav(hiss, RATE, "PCM_16")), question],
        gist(taught.answer),
    )


def swapped(number: int) -> list[Case]:
    """What differs between two pictures. Broken: the second comes first."""
    return [_of_two(one, (1, 0)) for one in islice(_of_two_colours(6), number)]


def lost(number: int) -> list[Case]:
    """What differs between two pictures. Broken: the second is lost."""
    return [_of_two(one, (0,)) for one in islice(_of_two_colours(7), number)]


def repeated(number: int) -> list[Case]:
    """What differs between two pictures. Broken: the first is shown in place of the second, too."""
    return [_of_two(one, (0, 0)) for one in islice(_of_two_colours(8), number)]


def _of_two_colours(series: int) -> Iterator[Lesson]:
    return (one for one in _lessons("differ", series) if len(set(_colours(one))) == 2)


def _of_two(taught: Lesson, shown: Sequence[int]) -> Case:
    parts = [image_part(picture.image) for picture in taught.pictures]
    question = _question(taught)
    colours = _colours(taught)
    mistaken = colours[::-1] if tuple(shown) == (1, 0) else ()
    return Case([*parts, question], [*(parts[at] for at in shown), question], colours, mistaken)


def _colours(taught: Lesson) -> Gist:
    """Of the first thing in each picture."""
    return tuple(picture.things[0].colour for picture in taught.pictures)


def _lessons(task: str, series: int) -> Iterator[Lesson]:
    return (lesson(task, _draw(series, number), GRID, SECONDS) for number in count())


def _draw(*numbers: int) -> Draw:
    """Chance of our own among what is never learnt from."""
    return np.random.default_rng([Split.HELD_OUT, *b"meaning", *numbers])


def _question(taught: Lesson) -> Part:
    return text_part(taught.messages[-1]["content"][-1]["text"])
