"""One sound in every format that clips come in."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray

from tests.media.samples import Samples, clip

#: (samples, or samples by channels; Hz) to a file.
Encoder = Callable[[Samples, int], bytes]


def by_sndfile(kind: str, subtype: str | None = None) -> Encoder:
    return lambda samples, rate: clip(samples, rate, kind, subtype)


def by_ffmpeg(container: str, codec: str, *, film: bool = False, **options: str) -> Encoder:
    """With time stamps: the container tells what the encoder put before the sound; with a picture if `film`."""

    def encode(samples: Samples, rate: int) -> bytes:
        planar = np.ascontiguousarray(np.atleast_2d(samples.T), dtype=np.float32)
        target = BytesIO()
        with av.open(target, "w", format=container, options=options) as output:
            picture = _picture_stream(output) if film else None
            sound = output.add_stream(codec, rate=rate, layout=_LAYOUTS[len(planar)])
            sound.bit_rate = 64_000
            sound.codec_context.open()
            if picture:
                _put_picture(output, picture)
            _put_sound(output, sound, planar)
        return target.getvalue()

    return encode


_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def _put_sound(output: av.container.OutputContainer, stream: av.AudioStream, planar: Samples) -> None:
    rate, layout = stream.rate, stream.layout.name
    frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=size)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def _picture_stream(output: av.container.OutputContainer) -> av.VideoStream:
    stream = output.add_stream("mpeg4", rate=5)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _put_picture(output: av.container.OutputContainer, stream: av.VideoStream) -> None:
    output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    output.mux(stream.encode(None))


def silent_film() -> bytes:
    target = BytesIO()
    with av.open(target, "w", format="mp4") as output:
        _put_picture(output, _picture_stream(output))
    return target.getvalue()


def wide_band_amr(seconds: float) -> bytes:
    """No encoder is there for it: frames of 20 ms at 12.65 kbit/s, of noise."""
    noise = np.random.default_rng(5)
    return b"#!AMR-WB\n" + b"".join(b"\x14" + noise.bytes(32) for _ in range(round(seconds * 50)))


#: What libsndfile reads, to the last bit.
LOSSLESS: dict[str, Encoder] = {
    "WAV 8 bit": by_sndfile("WAV", "PCM_U8"),
    "WAV 16 bit": by_sndfile("WAV", "PCM_16"),
    "WAV 24 bit": by_sndfile("WAV", "PCM_24"),
    "WAV 32 bit": by_sndfile("WAV", "PCM_32"),
    "WAV float": by_sndfile("WAV", "FLOAT"),
    "WAV double": by_sndfile("WAV", "DOUBLE"),
    "WAV A-law": by_sndfile("WAV", "ALAW"),
    "WAV mu-law": by_sndfile("WAV", "ULAW"),
    "WAV IMA ADPCM": by_sndfile("WAV", "IMA_ADPCM"),
    "WAV extensible": by_sndfile("WAVEX", "PCM_24"),
    "WAV RF64": by_sndfile("RF64", "PCM_16"),
    "AIFF 16 bit": by_sndfile("AIFF", "PCM_16"),
    "AIFF 24 bit": by_sndfile("AIFF", "PCM_24"),
    "AIFC float": by_sndfile("AIFF", "FLOAT"),
    "AIFC mu-law": by_sndfile("AIFF", "ULAW"),
    "CAF 16 bit": by_sndfile("CAF", "PCM_16"),
    "CAF ALAC": by_sndfile("CAF", "ALAC_16"),
    "AU 16 bit": by_sndfile("AU", "PCM_16"),
    "AU mu-law": by_sndfile("AU", "ULAW"),
    "FLAC 16 bit": by_sndfile("FLAC", "PCM_16"),
    "FLAC 24 bit": by_sndfile("FLAC", "PCM_24"),
}

LOSSY: dict[str, Encoder] = {
    "MP3": by_sndfile("MP3"),
    "OGG Vorbis": by_sndfile("OGG", "VORBIS"),
}

#: What FFmpeg reads: the name of its demuxer, and the encoder.
FFMPEG: dict[str, tuple[str, Encoder]] = {
    "OGG Opus": ("ogg", by_ffmpeg("ogg", "libopus")),
    "OGG FLAC": ("ogg", by_ffmpeg("ogg", "flac")),
    "M4A AAC": ("mov", by_ffmpeg("ipod", "aac")),
    "M4A ALAC": ("mov", by_ffmpeg("ipod", "alac")),
    "MP4 AAC in fragments": ("mov", by_ffmpeg("mp4", "aac", movflags="frag_keyframe+empty_moov")),
    "MP4 film": ("mov", by_ffmpeg("mp4", "aac", film=True)),
    "MOV PCM": ("mov", by_ffmpeg("mov", "pcm_s16le")),
    "AAC ADTS": ("aac", by_ffmpeg("adts", "aac")),
    "WebM Opus": ("matroska", by_ffmpeg("webm", "libopus")),
    "Matroska AAC film": ("matroska", by_ffmpeg("matroska", "aac", film=True)),
    "MPEG-TS film": ("mpegts", by_ffmpeg("mpegts", "aac", film=True)),
    "AVI film": ("avi", by_ffmpeg("avi", "pcm_s16le", film=True)),
    "WMA": ("asf", by_ffmpeg("asf", "wmav2")),
}

#: Telephones': 8 kHz, one channel.
AMR = by_ffmpeg("amr", "libopencore_amrnb")


def rates(name: str) -> tuple[int, ...]:
    """Sampling rates, in Hz, that the format knows."""
    return (8_000, 16_000, 48_000) if "Opus" in name else (8_000, 16_000, 44_100, 48_000)


def power(samples: NDArray[np.float32]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def decibels(actual: Samples, expected: Samples) -> float:
    """The power of the difference in relation to what was expected; lengths must be equal."""
    assert actual.shape == expected.shape
    return 10 * float(np.log10(power(actual - expected) / power(expected) + 1e-20))
