"""Makes images, clips and requests for the tests of media."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from gateway.protocol import InferenceRequest, parse

Samples = NDArray[np.float32]


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    """A picture with a different colour at every place."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256, 255 - x * 255 // width], -1)
    image = Image.fromarray(planes.astype(np.uint8), "RGBA")
    return image.convert(mode) if "A" in mode else image.convert("RGB").convert(mode)


def image_bytes(kind: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    target = BytesIO()
    (image or picture()).save(target, kind, **options)
    return target.getvalue()


def tone(seconds: float, rate: int, channels: int = 1) -> Samples:
    """A rising tone with a little noise, (samples, channels) or (samples,)."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(7).standard_normal(len(t))
    mono = (0.4 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.02 * noise).astype(np.float32)
    return mono if channels == 1 else np.stack([mono * (1 - 0.3 * i) for i in range(channels)], -1)


def clip(samples: Samples, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Encoded by libsndfile."""
    target = BytesIO()
    soundfile.write(target, samples, rate, format=kind, subtype=subtype)
    return target.getvalue()


def ffmpeg_clip(samples: Samples, rate: int, container: str, codec: str) -> bytes:
    """Encoded by FFmpeg, mono or stereo."""
    planar = np.ascontiguousarray(np.atleast_2d(samples.T), dtype=np.float32)
    layout = "mono" if len(planar) == 1 else "stereo"
    target = BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return target.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def request(path: str, document: dict[str, Any]) -> InferenceRequest:
    return parse(path, json.dumps({"model": "gemma", **document}).encode())


def chat(*content: Any, path: str = "/v1/chat/completions", **fields: Any) -> InferenceRequest:
    """A chat request whose one message has these parts."""
    return request(path, {"messages": [{"role": "user", "content": list(content)}], **fields})


def image_part(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}
