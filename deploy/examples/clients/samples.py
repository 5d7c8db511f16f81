"""Makes the pictures, the sounds and the film that the guides use: `python samples.py FOLDER`. Needs Pillow."""

from __future__ import annotations

import math
import struct
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

#: Samples of sound per second.
RATE = 16_000
#: The two frequencies, in hertz, that each key of a telephone sounds.
KEYS = {"4": (770, 1209), "0": (941, 1336), "7": (852, 1209), "1": (697, 1209)}


def shapes(second_colour: str = "blue") -> Image.Image:
    """A red circle, a square and a green triangle on white."""
    picture = Image.new("RGB", (960, 720), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((90, 120, 330, 360), fill="red")
    pen.rectangle((420, 330, 660, 570), fill=second_colour)
    pen.polygon([(800, 90), (700, 300), (900, 300)], fill="green")
    return picture


def circle() -> Image.Image:
    """A red circle alone."""
    picture = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(picture).ellipse((120, 90, 360, 330), fill="red")
    return picture


def square() -> Image.Image:
    """A blue square alone."""
    picture = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(picture).rectangle((150, 180, 390, 420), fill="blue")
    return picture


def digits() -> Image.Image:
    """A number, so small that it is lost at a low budget."""
    picture = Image.new("RGB", (960, 720), "white")
    ImageDraw.Draw(picture).text((80, 120), "4071", fill="black", font=ImageFont.load_default(80))
    return picture


def beeps(path: Path, count: int = 3) -> None:
    """Short tones with pauses between them."""
    _record(path, [((1000, 1000), 0.12, 0.38)] * count)


def number(path: Path, keys: str = "4071") -> None:
    """A number that is dialled."""
    _record(path, [(KEYS[key], 0.18, 0.17) for key in keys])


def _record(path: Path, sounds: Sequence[tuple[tuple[int, int], float, float]]) -> None:
    """A WAV of 16 bits that begins with a quarter of a second of silence.

    Of each sound the two frequencies (Hz), how long it lasts and the pause after it (seconds).
    """
    samples = [0] * (RATE // 4)
    for frequencies, seconds, pause in sounds:
        turns = [
            [math.sin(2 * math.pi * hertz * n / RATE) for n in range(int(RATE * seconds))] for hertz in frequencies
        ]
        samples += [round(6_000 * (low + high)) for low, high in zip(*turns, strict=True)]
        samples += [0] * int(RATE * pause)
    del samples[-(RATE // 10) :]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes().save(folder / "shapes.png")
    circle().save(folder / "circle.png")
    square().save(folder / "square.png")
    digits().save(folder / "digits.png")
    beeps(folder / "beeps.wav")
    number(folder / "number.wav")
    frames = [shapes(colour).resize((480, 360)) for colour in ("blue", "orange", "purple")]
    frames[0].save(folder / "colours.gif", save_all=True, append_images=frames[1:], duration=1000)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
