"""Makes the pictures, the sound and the film that the guides use: `python samples.py FOLDER`. Needs Pillow."""

from __future__ import annotations

import math
import struct
import sys
import wave
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

#: Samples of sound per second.
RATE = 16_000


def shapes(second_colour: str = "blue") -> Image.Image:
    """A red circle, a square and a green triangle on white."""
    picture = Image.new("RGB", (960, 720), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((90, 120, 330, 360), fill="red")
    pen.rectangle((420, 330, 660, 570), fill=second_colour)
    pen.polygon([(800, 90), (700, 300), (900, 300)], fill="green")
    return picture


def words() -> Image.Image:
    """Two words and a number, each line a third as high as the one before: the last is lost at a low budget."""
    picture = Image.new("RGB", (960, 720), "white")
    pen = ImageDraw.Draw(picture)
    top = 60
    for text, height in (("OPEN", 126), ("door", 42), ("4071", 14)):
        pen.text((80, top), text, fill="black", font=ImageFont.load_default(height))
        top += height + 60
    return picture


def beeps(path: Path, count: int = 3) -> None:
    """Short high tones with pauses between them, as a WAV of 16 bits."""
    tone = [round(12_000 * math.sin(2 * math.pi * 880 * n / RATE)) for n in range(RATE // 4)]
    samples = (tone + [0] * (RATE // 4)) * count
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes().save(folder / "shapes.png")
    shapes("orange").save(folder / "changed.png")
    words().save(folder / "words.png")
    beeps(folder / "beeps.wav")
    frames = [shapes(colour).resize((480, 360)) for colour in ("blue", "orange", "purple")]
    frames[0].save(folder / "colours.gif", save_all=True, append_images=frames[1:], duration=1000)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
