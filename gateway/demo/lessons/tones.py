"""Makes sounds: the two tones of each telephone key, plain and sliding tones, beeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.demo.lessons.lesson import Clip, Draw, Span

RATE = 16_000
#: Keys of a telephone and the two frequencies (Hz) of each: ITU-T Q.23.
KEYS = "0123456789"
LOW = {"1": 697, "2": 697, "3": 697, "4": 770, "5": 770, "6": 770, "7": 852, "8": 852, "9": 852, "0": 941}
HIGH = {"1": 1209, "4": 1209, "7": 1209, "2": 1336, "5": 1336, "8": 1336, "0": 1336, "3": 1477, "6": 1477, "9": 1477}
PITCHES = ("high", "low", "rising", "falling")
#: First and last frequency (Hz), between which a tone of that name begins and ends.
FROM = {"high": (2200, 3600), "low": (140, 300), "rising": (250, 500), "falling": (2000, 3200), "beep": (950, 1050)}
TO = {"rising": (2000, 3200), "falling": (250, 500)}
TONES = (*KEYS, *PITCHES, "beep")
#: Seconds of silence at least between two sounds; seconds of fading.
GAP, FADE = 0.08, 0.008
NOISE = (0.0, 0.004)


@dataclass(frozen=True)
class Sound:
    """A tone's name and its length in seconds."""

    tone: str
    seconds: float


def record(draw: Draw, seconds: float, sounds: Sequence[Sound]) -> Clip:
    """A clip of `seconds` in which the sounds follow one another, with chance silences.

    Raises ValueError if they do not fit.
    """
    spare = seconds - sum(sound.seconds for sound in sounds) - GAP * (len(sounds) + 1)
    if spare < 0:
        raise ValueError(f"{len(sounds)} sounds do not fit into {seconds} s")
    gaps = GAP + draw.dirichlet(np.full(len(sounds) + 1, 3.0)) * spare
    samples = draw.normal(0, float(draw.uniform(*NOISE)) + 1e-5, round(seconds * RATE))
    loudness = float(draw.uniform(0.15, 0.8))
    spans, start = [], 0.0
    for gap, sound in zip(gaps, sounds, strict=False):
        start += float(gap)
        _add(samples, round(start * RATE), loudness * _wave(draw, sound))
        spans.append(Span(start, start + sound.seconds, sound.tone))
        start += sound.seconds
    return Clip(np.clip(samples, -1, 1).astype(np.float32), tuple(spans))


def _add(samples: NDArray[np.float64], start: int, wave: NDArray[np.float64]) -> None:
    room = samples[start : start + len(wave)]
    room += wave[: len(room)]


def _wave(draw: Draw, sound: Sound) -> NDArray[np.float64]:
    time = np.arange(round(sound.seconds * RATE)) / RATE
    if sound.tone in LOW:
        wave = (np.sin(2 * np.pi * LOW[sound.tone] * time) + np.sin(2 * np.pi * HIGH[sound.tone] * time)) / 2
    else:
        first = float(draw.uniform(*FROM[sound.tone]))
        last = float(draw.uniform(*TO[sound.tone])) if sound.tone in TO else first
        wave = np.sin(2 * np.pi * (first * time + (last - first) * time**2 / (2 * sound.seconds)))
    fade = np.minimum(1, np.minimum(time, time[::-1]) / FADE)
    faded: NDArray[np.float64] = wave * fade
    return faded
