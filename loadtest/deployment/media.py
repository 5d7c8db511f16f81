"""Pictures and clips that are made up, the same for the same seed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import soundfile
from PIL import Image

#: Of the noise over a gradient: as a photograph, it then takes one to two bits per pixel as JPEG.
_GRAIN = 12
_LOUDNESS = 0.2


def picture(random: np.random.Generator, width: int, height: int, kind: str) -> bytes:
    """A gradient with grain, `width` by `height` pixels, encoded as `kind` (jpeg, png or webp)."""
    low, high = random.integers(0, 128, 3), random.integers(128, 256, 3)
    across = np.linspace(0, 1, width)[None, :, None]
    down = np.linspace(0, 1, height)[:, None, None]
    smooth = low + (high - low) * (across + down) / 2
    grain = random.integers(-_GRAIN, _GRAIN + 1, (height, width, 1))
    target = BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(target, kind, quality=85)
    return target.getvalue()


def clip(random: np.random.Generator, seconds: int, hertz: int, kind: str) -> bytes:
    """Two tones and a little noise, one channel, `seconds` at `hertz`, encoded as `kind` (wav or mp3)."""
    time = np.arange(seconds * hertz) / hertz
    tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in random.uniform(100, 1000, 2))
    sound = _LOUDNESS * (tones + 0.1 * random.standard_normal(time.size))
    target = BytesIO()
    soundfile.write(target, sound, hertz, format=kind.upper())
    return target.getvalue()
