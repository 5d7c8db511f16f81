"""Lessons in hearing: dialled numbers, tones, beeps, alone and beside a picture."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.demo.lessons.lesson import AUDIO, IMAGE, Clip, Draw, Lesson, pick, user
from gateway.demo.lessons.scenes import kinds, paint
from gateway.demo.lessons.seeing import named
from gateway.demo.lessons.tones import GAP, KEYS, PITCHES, Sound, record

DIALLED = ("Which number was dialled?", "Which number is dialled?", "What was dialed?", "Which keys do you hear?")
TRANSCRIBE = tuple(
    f"Transcribe the following speech segment in {language}.\n\n"
    "Follow these specific instructions for formatting the answer:\n"
    "* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
    "three."
    for language in ("its original language", "English into English text")
)
PITCH = ("What kind of tone is it?", "Is the tone high, low, rising or falling?", "Describe the tone.")
BEEPS = ("How many beeps are there?", "How many beeps do you hear?", "Count the beeps.")
BOTH = ("What do you see and hear?", "What is in the picture, and what is dialled?", "Describe picture and sound.")


def key(draw: Draw, seconds: float) -> Lesson:
    """One key of a telephone."""
    return _heard("key", draw, seconds, pick(draw, KEYS))


def dialled(draw: Draw, seconds: float) -> Lesson:
    """Keys of a telephone, as many as there is time for, eleven at most."""
    return _heard("dialled", draw, seconds, _keys(draw, seconds))


def transcribe(draw: Draw, seconds: float) -> Lesson:
    """Keys of a telephone, written down as the gateway's transcriptions ask for it."""
    return _heard("transcribe", draw, seconds, _keys(draw, seconds), TRANSCRIBE)


def pitch(draw: Draw, seconds: float) -> Lesson:
    """A tone that is high, low, rising or falling."""
    name = pick(draw, PITCHES)
    longest = min(2.0, seconds * 0.8, seconds - 2 * GAP)
    clip = record(draw, seconds, [Sound(name, float(draw.uniform(0.4, longest)))])
    return Lesson("pitch", (user(AUDIO, pick(draw, PITCH)),), f"A {name} tone.", clips=(clip,))


def beeps(draw: Draw, seconds: float) -> Lesson:
    """One to six beeps."""
    number = int(draw.integers(1, 1 + min(6, int(seconds / 0.35))))
    clip = record(draw, seconds, [Sound("beep", float(draw.uniform(0.09, 0.16))) for _ in range(number)])
    return Lesson("beeps", (user(AUDIO, pick(draw, BEEPS)),), str(number), clips=(clip,))


def together(draw: Draw, size: tuple[int, int], seconds: float) -> Lesson:
    """A picture of one shape, and keys."""
    picture = paint(draw, size, kinds(draw, 1))
    dialled = _keys(draw, seconds)
    answer = f"{named(picture.things)[:-1]}, and {dialled} is dialled."
    clip = _dial(draw, seconds, dialled)
    return Lesson("together", (user(IMAGE, AUDIO, pick(draw, BOTH)),), answer, (picture,), (clip,))


def _heard(task: str, draw: Draw, seconds: float, keys: str, questions: Sequence[str] = DIALLED) -> Lesson:
    return Lesson(task, (user(AUDIO, pick(draw, questions)),), keys, clips=(_dial(draw, seconds, keys),))


def _keys(draw: Draw, seconds: float) -> str:
    most = max(1, min(11, int(seconds / 0.32)))
    return "".join(pick(draw, KEYS) for _ in range(int(draw.integers(min(2, most), most + 1))))


def _dial(draw: Draw, seconds: float, keys: str) -> Clip:
    return record(draw, seconds, [Sound(one, float(draw.uniform(0.13, 0.2))) for one in keys])
