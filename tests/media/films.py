"""Makes films whose frames are numbered, in any container, for the tests of video."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pybase64
from av.audio.stream import AudioStream
from av.container import OutputContainer
from numpy.typing import NDArray
from PIL import Image

from gateway.media.prepared import Prepared
from gateway.media.video import VideoLimits
from gateway.settings import Family, MediaSettings
from tests.media.samples import Samples

Pixels = NDArray[np.uint8]

#: Stripes across the upper half of a frame, black or white: the number's bits, the lowest first.
_BITS = 10


#: Width and height in pixels.
SIZE = (120, 90)


def drawn(number: int, size: tuple[int, int] = SIZE) -> Pixels:
    """A frame that shows its number, over colours that move with it."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    shades = np.stack([(x + 5 * number) % 256, (y + 3 * number) % 256, np.full_like(x, 8 * number % 256)], -1)
    stripes = x * _BITS // width
    shades[: height // 2] = (255 * (number >> stripes & 1))[: height // 2, :, None]
    return shades.astype(np.uint8)


def number_in(image: Image.Image) -> int:
    """The number that a frame shows."""
    grey = np.asarray(image.convert("L"), dtype=np.int32)
    middles = ((2 * np.arange(_BITS) + 1) * image.width) // (2 * _BITS)
    return int(sum(1 << bit for bit, column in enumerate(middles) if grey[image.height // 4, column] > 127))


#: So that encoding takes no time.
_FAST = {
    "libx264": {"preset": "ultrafast", "bf": "2"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}


def film(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    frames: int | Sequence[Pixels] = 24,
    size: tuple[int, int] = SIZE,
    rate: float = 24,
    times: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    sound: Samples | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> bytes:
    """A film of so many numbered frames, or of those given; `times` in milliseconds replace the steady `rate`.

    `sound` at 16 kHz, one channel, becomes a track of its own. `options` are the encoder's, `muxer` the container's.
    """
    pictures = [drawn(number, size) for number in range(frames)] if isinstance(frames, int) else frames
    clock = Fraction(1, 1000) if times else 1 / Fraction(rate).limit_denominator(1001)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        with av.open(path, "w", format=container, options=muxer or {}) as output:
            stream = output.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = *size, pixel_format
            stream.options = _FAST.get(codec, {}) | (options or {})
            stream.codec_context.sample_aspect_ratio = aspect
            stream.codec_context.time_base = clock
            if rotation:
                stream.set_display_rotation(rotation)
            track = None if sound is None else output.add_stream("aac", rate=16_000, layout="mono")
            for index, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = times[index] if times else index, clock
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if track is not None and sound is not None:
                _add_sound(output, track, sound)
        return path.read_bytes()


def _add_sound(output: OutputContainer, track: AudioStream, sound: Samples) -> None:
    frame = av.AudioFrame.from_ndarray(sound[None, :], format="fltp", layout="mono")
    frame.sample_rate = 16_000
    for piece in (*av.AudioResampler("fltp", "mono", 16_000, 1024).resample(frame), None):
        output.mux(track.encode(piece))


def shown(prepared: Prepared) -> list[Image.Image]:
    """The frames of a prepared video, which is its first piece."""
    texts = prepared.pieces[0].base64
    assert texts is not None
    return [Image.open(BytesIO(pybase64.b64decode(text, validate=True))) for text in texts.split(b",")]


def numbers(prepared: Prepared) -> list[int]:
    """Which frames are in the first piece."""
    return [number_in(frame) for frame in shown(prepared)]


def milliseconds(prepared: Prepared) -> Any:
    return prepared.options["frames_indices"]


def evenly(frames: int, count: int) -> list[int]:
    """What vLLM's `compute_frames_index_to_sample` gives."""
    return list(np.linspace(0, frames - 1, count, dtype=int))


def limits(**changes: Any) -> VideoLimits:
    """Those of the default settings, for a Gemma 4, but for `changes`."""
    media = MediaSettings()
    values: dict[str, Any] = {
        "max_pixels": media.max_image_pixels,
        "max_seconds": media.max_video_seconds,
        "max_frames": media.max_video_frames,
        "family": Family.GEMMA4,
        "audio": None,
        "max_audio_seconds": media.max_audio_seconds,
        "max_pieces": media.max_clips,
    }
    return VideoLimits(**values | changes)
