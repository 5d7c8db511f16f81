"""Decodes clips of any common format to what Gemma hears: 16 kHz, mono. Pure, slow: for worker processes.

The resampler is soxr at its very high quality. Mono is the mean of the channels. The result is a WAV of 32-bit
floats: the engine gets exactly the samples that were computed here, where 16 bits would round them (and a rounding
moves logprobs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np
import pybase64
import soundfile
import soxr
from numpy.typing import NDArray

from gateway.errors import MediaError
from gateway.media import budget
from gateway.media.prepared import Piece, Prepared
from gateway.settings import Family, LongAudio, Modality

#: Hz, of every Gemma's audio feature extractor.
SAMPLE_RATE = 16_000

#: What every Gemma hears of a clip at most: its feature extractor cuts at 480,000 samples.
HEARS_SECONDS = 30.0

MEDIA_TYPE = "audio/wav"

#: Hz. A header may claim billions, and the limit in seconds would then bound no memory.
_RATES = range(1_000, 384_001)

#: Samples at 16 kHz: 40 ms, one audio token of Gemma 4. Less may give no token at all, without an error.
_SHORTEST = 640

#: Samples of all channels decoded at a time.
_BLOCK = 1 << 18

_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_WAV_FLOAT = 3
_EXACT = ("PCM_16", "PCM_24", "FLOAT")

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Format:
    """A container: whether libsndfile may read it, and the name of FFmpeg's demuxer.

    The demuxer is always named: FFmpeg's own guess would also take playlists, which make it open files and URLs.
    """

    demuxer: str
    sndfile: bool = False


_WAV = _Format("wav", sndfile=True)
_MP3 = _Format("mp3", sndfile=True)
_AAC = _Format("aac")

#: First bytes of the file to its format. https://en.wikipedia.org/wiki/List_of_file_signatures
_MAGIC = (
    (b"fLaC", _Format("flac", sndfile=True)),
    (b"OggS", _Format("ogg", sndfile=True)),
    (b"ID3", _MP3),
    (b".snd", _Format("au", sndfile=True)),
    (b"caff", _Format("caf", sndfile=True)),
    (b"\x1aE\xdf\xa3", _Format("matroska")),
    (b"#!AMR", _Format("amr")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _Format("asf")),
)


def prepare(data: bytes, max_seconds: float, family: Family, policy: LongAudio, max_pieces: int) -> Prepared:
    """A mono WAV at 16 kHz: `data` as it came where it is one with 16, 24 or float bits, else 32-bit floats.

    Raises MediaError where it is no audio, broken, shorter than a token or longer than `max_seconds`.
    """
    del policy, max_pieces
    kind = _sniff(data)
    samples = _to_16_khz(*_decode(data, kind, min(max_seconds, HEARS_SECONDS)))
    if samples.size < _SHORTEST:
        raise MediaError(f"the clip is too short: {samples.size} samples at 16 kHz; at least {_SHORTEST} are needed")
    if not np.isfinite(samples).all():
        raise MediaError("the clip holds samples that are not numbers")
    base64 = None if kind is _WAV and _is_ready(data) else pybase64.b64encode(encode(samples))
    tokens = budget.audio_tokens(samples.size, family)
    return Prepared((Piece(Modality.AUDIO, MEDIA_TYPE, base64, tokens, 0.0, samples.size / SAMPLE_RATE),))


def encode(samples: Samples) -> bytes:
    """A WAV file of 32-bit floats at 16 kHz, one channel; the same samples give the same bytes."""
    body = samples.astype("<f4").tobytes()
    rate, width = SAMPLE_RATE, 4
    header = (b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, _WAV_FLOAT, 1, rate, rate * width, width, 8 * width)
    return _WAV_HEADER.pack(*header, b"data", len(body)) + body


def _sniff(data: bytes) -> _Format:
    if not data:
        raise MediaError("the clip is empty")
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _WAV
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return _Format("aiff", sndfile=True)
    if data[4:8] == b"ftyp":
        return _Format("mov")
    if found := next((kind for magic, kind in _MAGIC if data.startswith(magic)), None):
        return found
    return _sniff_frame(data)


def _sniff_frame(data: bytes) -> _Format:
    """MPEG audio without a container: eleven bits set, then the layer, which is 0 in AAC's ADTS frames."""
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return _AAC if data[1] & 0xF6 == 0xF0 else _MP3
    raise MediaError("the data is no audio of a known format (WAV, MP3, FLAC, OGG, M4A, AAC, WebM, AMR, AIFF)")


def _decode(data: bytes, kind: _Format, max_seconds: float) -> tuple[Samples, int]:
    """All samples as mono, and their rate in Hz. libsndfile first; what it cannot read is left to FFmpeg."""
    if kind.sndfile:
        try:
            return _collect(_sndfile_blocks(data), max_seconds)
        except soundfile.LibsndfileError:
            pass
    with _decoding():
        return _collect(_ffmpeg_blocks(data, kind.demuxer), max_seconds)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, LookupError, RuntimeError) as fault:
        raise MediaError("the clip is truncated or corrupt") from fault


def _sndfile_blocks(data: bytes) -> Iterator[tuple[Samples, int]]:
    with soundfile.SoundFile(BytesIO(data)) as file:
        frames = max(1, _BLOCK // file.channels)
        while len(block := file.read(frames, dtype="float32", always_2d=True)):
            yield block.mean(axis=1), file.samplerate


def _ffmpeg_blocks(data: bytes, demuxer: str) -> Iterator[tuple[Samples, int]]:
    with av.open(BytesIO(data), format=demuxer, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise MediaError("the file has no audio track")
        stream = container.streams.audio[0]
        stream.thread_count = 1
        floats = av.AudioResampler(format="fltp")
        for frame in container.decode(stream):
            for planar in floats.resample(frame):
                yield planar.to_ndarray().mean(axis=0), planar.sample_rate


def _collect(blocks: Iterator[tuple[Samples, int]], max_seconds: float) -> tuple[Samples, int]:
    """Joins blocks until they end or exceed the limit, so that a bomb is never unpacked whole."""
    kept: list[Samples] = []
    rate, count = SAMPLE_RATE, 0
    for samples, rate in blocks:
        if rate not in _RATES:
            raise MediaError(f"the clip's sampling rate is {rate} Hz; it must be from {_RATES[0]} to {_RATES[-1]} Hz")
        kept.append(samples)
        count += len(samples)
        if count > max_seconds * rate:
            raise MediaError(
                f"the clip is longer than the {max_seconds:g} seconds that the model hears at once;"
                " the field long_audio may ask to split or to truncate it"
            )
    if not kept:
        raise MediaError("the clip is empty")
    return np.concatenate(kept), rate


def _to_16_khz(samples: Samples, rate: int) -> Samples:
    if rate == SAMPLE_RATE:
        return samples
    resampled: Samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="VHQ")
    return resampled


def _is_ready(data: bytes) -> bool:
    try:
        info = soundfile.info(BytesIO(data))
    except soundfile.LibsndfileError:
        return False
    return (info.format, info.channels, info.samplerate) == ("WAV", 1, SAMPLE_RATE) and info.subtype in _EXACT
