"""Decodes clips of any format to samples at 16 kHz, mono, block by block. Pure, slow: for worker processes.

The resampler is soxr at its very high quality; mono is the mean of the channels. Of what lossy codecs put before and
behind the sound, that is dropped which libsndfile and FFmpeg drop by what the file says of it, and the filling of the
last frame in MP4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, pairwise

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from gateway.errors import MediaError, MediaTooLargeError, SilentMediaError
from gateway.media import audio_formats, containers
from gateway.media.audio_formats import Format

#: Hz, of every Gemma's audio feature extractor.
SAMPLE_RATE = 16_000

#: Hz. A header may claim billions, and the limit in seconds would then bound no memory.
_RATES = range(1_000, 384_001)

#: Samples of all channels decoded at a time.
_BLOCK = 1 << 16

#: Blocks resampled at a time: FFmpeg gives a thousand samples each, at which a call costs as much as its work.
_TOGETHER = 64

#: What cannot be told from silence or from a constant: less than one step of 16 bits from the lowest to the highest.
_LEAST_SWING = 2.0**-15

#: Seconds that may be missing to what the header promised; encoders miscount by a frame or two.
_MISCOUNT = 0.1

#: What libsndfile says where the header leaves the number of samples open.
_OPEN_END = 2**63 - 1

#: The decoders that FFmpeg may use, also to guess what a container holds. Not those of pictures, nor the many of games.
_DECODERS = (
    *("aac", "aac_latm", "ac3", "alac", "amrnb", "amrwb", "eac3", "flac", "gsm", "gsm_ms", "mp1", "mp1float", "mp2"),
    *("mp2float", "mp3", "mp3float", "opus", "vorbis", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice"),
    *(
        "adpcm_ima_qt",
        "adpcm_ima_wav",
        "adpcm_ms",
        "pcm_alaw",
        "pcm_bluray",
        "pcm_dvd",
        "pcm_mulaw",
        "pcm_s8",
        "pcm_u8",
    ),
    *(f"pcm_{kind}{width}{end}" for kind in "su" for width in (16, 24, 32) for end in ("be", "le")),
    *(f"pcm_f{width}{end}" for width in (32, 64) for end in ("be", "le")),
)

_EXACT = ("PCM_16", "PCM_24", "FLOAT")

Samples = NDArray[np.float32]
_Block = tuple[Samples, int]


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples at 16 kHz and the length of the whole clip in seconds, of which they may be only the beginning.

    `ready` tells that the file itself is a mono WAV at 16 kHz, with samples that lose nothing as 32-bit floats.
    """

    samples: Samples
    seconds: float
    ready: bool


def decode(data: bytes, max_seconds: float, kept_seconds: float) -> Sound:
    """The samples of the first `kept_seconds` at least; what follows is only counted.

    Raises MediaError where it is no audio, broken, cut off, silent or not a number, MediaTooLargeError where it is
    longer than `max_seconds`.
    """
    data = audio_formats.without_tag(data)
    kind = audio_formats.sniff(data)
    if containers.is_cut_off(data):
        raise MediaError("the clip is truncated: its container goes on behind the end of the data")
    with _reading():
        listener = _Listener(max_seconds, kept_seconds)
        for samples, rate in _blocks(containers.with_open_end(data), kind):
            listener.hear(samples, rate)
        return Sound(listener.samples(), listener.seconds, kind is audio_formats.WAV and _is_ready(data))


def is_silent(samples: Samples) -> bool:
    """Whether there is nothing to hear in them: digital silence, or a constant."""
    return bool(np.ptp(samples) < _LEAST_SWING)


@contextmanager
def _reading() -> Iterator[None]:
    """Names the faults of decoders. What is not a number is looked for where it matters, without numpy's warnings."""
    try:
        with np.errstate(all="ignore"):
            yield
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, LookupError, RuntimeError, MemoryError) as fault:
        raise MediaError("the clip is truncated or corrupt") from fault


class _Listener:
    """Resamples what it hears while it is to be kept, and counts all of it."""

    def __init__(self, max_seconds: float, kept_seconds: float) -> None:
        self._max_seconds, self._kept_seconds = max_seconds, kept_seconds
        self._rate, self._count = SAMPLE_RATE, 0
        self._stream: soxr.ResampleStream | None = None
        self._waiting: list[Samples] = []
        self._kept: list[Samples] = []
        self._low, self._high = np.inf, -np.inf

    @property
    def seconds(self) -> float:
        return self._count / self._rate

    def hear(self, samples: Samples, rate: int) -> None:
        """Takes the next samples, of one channel, at `rate` in Hz."""
        if not self._count:
            self._begin(rate)
        if rate != self._rate:
            raise MediaError("the clip changes its sampling rate midway")
        wanted = self.seconds <= self._kept_seconds
        self._count += len(samples)
        if self.seconds > self._max_seconds:
            raise MediaTooLargeError(f"the clip is longer than {self._max_seconds:g} seconds (media.max_audio_seconds)")
        if wanted:
            self._waiting.append(samples)
        if len(self._waiting) >= _TOGETHER:
            self._keep()

    def samples(self) -> Samples:
        """All that was kept, at 16 kHz."""
        if not self._count:
            raise MediaError("the clip is empty")
        self._keep()
        if self._high - self._low < _LEAST_SWING:
            raise SilentMediaError("the clip is silent", seconds=self.seconds)
        if self._stream:
            self._kept.append(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate(self._kept)

    def _begin(self, rate: int) -> None:
        if rate not in _RATES:
            raise MediaError(f"the clip's sampling rate is {rate} Hz; it must be from {_RATES[0]} to {_RATES[-1]} Hz")
        self._rate = rate
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")

    def _keep(self) -> None:
        samples = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        self._waiting.clear()
        if not samples.size:
            return
        low, high = float(samples.min()), float(samples.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise MediaError("the clip holds samples that are not numbers")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._kept.append(self._stream.resample_chunk(samples) if self._stream else samples)


def _blocks(data: bytes, kind: Format) -> Iterator[_Block]:
    """Samples as mono, and their rate in Hz. libsndfile where it knows the file, else FFmpeg."""
    file = _open_by_sndfile(data) if kind.sndfile else None
    return _sndfile_blocks(file) if file else _ffmpeg_blocks(data, kind.demuxer)


def _open_by_sndfile(data: bytes) -> soundfile.SoundFile | None:
    """None where it cannot read the file, or (FLAC from a pipe) only if it knew the length."""
    try:
        file = soundfile.SoundFile(BytesIO(data))
    except soundfile.LibsndfileError:
        return None
    return file if file.frames < _OPEN_END else None


def _sndfile_blocks(file: soundfile.SoundFile) -> Iterator[_Block]:
    missing = file.frames
    with file:
        while len(block := file.read(max(1, _BLOCK // file.channels), dtype="float32", always_2d=True)):
            missing -= len(block)
            yield block @ _weights(file.channels), file.samplerate
        if missing > _MISCOUNT * file.samplerate:
            raise MediaError("the clip is truncated or corrupt: there is less of it than its header says")


def _ffmpeg_blocks(data: bytes, demuxer: str) -> Iterator[_Block]:
    options = {"codec_whitelist": ",".join(_DECODERS)}
    with av.open(BytesIO(data), format=demuxer, options=options, metadata_errors="ignore") as container:
        stream = _track(container)
        declared = float(stream.duration * stream.time_base) if demuxer == "mov" and stream.duration else None
        yield from _without_filling(_frames(container, stream), declared)


def _track(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise MediaError("the file has no audio track")
    stream = container.streams.audio[0]
    if stream.codec_context is None or stream.codec_context.name not in _DECODERS:
        raise MediaError("the codec of the audio track is not supported")
    stream.thread_count = 1
    return stream


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[_Block]:
    floats = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        for planar in floats.resample(frame):
            channels = planar.to_ndarray()
            yield _weights(len(channels)) @ channels, planar.sample_rate


def _without_filling(blocks: Iterator[_Block], declared: float | None) -> Iterator[_Block]:
    """The blocks, less what in the last of them is behind the `declared` end, in seconds: an encoder's filling.

    Anything more is no filling but a header that lies, and stays.
    """
    count = 0
    for block, following in pairwise(chain(blocks, [None])):
        samples, rate = block  # type: ignore[misc]
        count += len(samples)
        surplus = count - round(declared * rate) if declared and following is None else 0
        yield (samples[:-surplus] if 0 < surplus < len(samples) else samples), rate


def _weights(channels: int) -> Samples:
    """For the mean as a product with a matrix, which numpy computes ten times faster than a mean of short rows."""
    return np.full(channels, 1 / channels, np.float32)


def _is_ready(data: bytes) -> bool:
    info = soundfile.info(BytesIO(data))
    return (info.format, info.channels, info.samplerate) == ("WAV", 1, SAMPLE_RATE) and info.subtype in _EXACT
