"""Pictures and sounds for the tests, drawn and computed with a fixed seed, in every container that clients send."""

from __future__ import annotations

import base64
import io

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[np.float32]


def picture(width: int = 320, height: int = 240, seed: int = 1) -> Image.Image:
    """Waves of colour under noise: no two seeds and no two turns of it look alike."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width))
    y, x = np.mgrid[0:height, 0:width]
    waves = [(np.sin(x / (7 + seed)) + 1) * 127, (np.cos(y / (11 + seed)) + 1) * 127, noise]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def sound(seconds: float = 1.0, rate: int = 16000, channels: int = 1, seed: int = 0) -> Samples:
    """A wavering tone under noise: shape (samples,) or (samples, channels), in -1..1."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(t))
    mono = 0.4 * np.sin(2 * np.pi * (300 + 200 * np.sin(4 * np.pi * t)) * t) + 0.05 * noise
    return (mono if channels == 1 else np.stack([mono, 0.5 * mono], -1)).astype(np.float32)


def wav(samples: Samples, rate: int = 16000, subtype: str = "FLOAT") -> bytes:
    return written(samples, rate, "WAV", subtype)


def written(samples: Samples, rate: int, container: str, subtype: str | None = None) -> bytes:
    """By libsndfile: WAV, FLAC, OGG (VORBIS or OPUS), MP3."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def muxed(samples: Samples, rate: int, container: str, codec: str) -> bytes:
    """By ffmpeg's libraries: AAC in mp4 or adts, Opus in webm."""
    buffer = io.BytesIO()
    planar = samples.reshape(len(samples), -1).T
    layout = "mono" if len(planar) == 1 else "stereo"
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planar), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format or "fltp", layout, rate, stream.frame_size or 1024)
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            output.mux(stream.encode(piece))
    return buffer.getvalue()


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image_part(image: Image.Image, kind: str = "PNG", **fields: object) -> dict[str, object]:
    url = data_url(encoded(image, kind), f"image/{kind.lower()}")
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def audio_part(content: bytes, kind: str = "audio/wav") -> dict[str, object]:
    return {"type": "audio_url", "audio_url": {"url": data_url(content, kind)}}


def text_part(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}
