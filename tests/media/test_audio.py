"""Clips of every common format become 16 kHz mono, with the samples that librosa would compute."""

from __future__ import annotations

import base64
import struct
from io import BytesIO

import librosa
import numpy as np
import pytest
import soundfile

from gateway.errors import MediaError
from gateway.media import audio
from gateway.media.audio import SAMPLE_RATE, encode
from gateway.media.prepared import Prepared
from gateway.settings import Family, LongAudio
from tests.media.samples import Samples, clip, ffmpeg_clip, tone

LIMIT = 30.0


def prepare(data: bytes, limit: float = LIMIT, policy: LongAudio = LongAudio.REJECT) -> Prepared:
    return audio.prepare(data, limit, Family.GEMMA4, policy, 32)


def heard(data: bytes) -> Samples:
    """The samples that were prepared for the engine."""
    (piece,) = prepare(data).pieces
    sent = data if piece.base64 is None else base64.b64decode(piece.base64)
    samples, rate = soundfile.read(BytesIO(sent), dtype="float32")
    assert rate == SAMPLE_RATE
    assert samples.ndim == 1
    mono: Samples = samples
    return mono


def by_librosa(samples: Samples, rate: int) -> Samples:
    """(samples, channels) at `rate` as the reference hears them."""
    mono = librosa.to_mono(samples.T)
    return np.asarray(librosa.resample(mono, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_vhq"), np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_float_wav_of_any_rate_equals_librosa(rate: int, channels: int) -> None:
    samples = tone(0.5, rate, channels)
    expected = by_librosa(samples, rate)
    actual = heard(clip(samples, rate, subtype="FLOAT"))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-6)


LIBSNDFILE = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "ALAW"),
    ("WAV", "IMA_ADPCM"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
]


@pytest.mark.parametrize(("kind", "subtype"), LIBSNDFILE)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_what_libsndfile_reads_equals_librosa(kind: str, subtype: str, rate: int) -> None:
    assert_equals_librosa(kind, subtype, rate)


@pytest.mark.parametrize(("kind", "subtype"), LIBSNDFILE[:-1], ids=str)
def test_what_libsndfile_reads_at_44_100_hz_equals_librosa(kind: str, subtype: str) -> None:
    """All but Opus, which has no such rate."""
    assert_equals_librosa(kind, subtype, 44_100)


def assert_equals_librosa(kind: str, subtype: str, rate: int) -> None:
    data = clip(tone(0.5, rate, 2), rate, kind, subtype)
    expected = by_librosa(*soundfile.read(BytesIO(data), dtype="float32"))
    np.testing.assert_allclose(heard(data), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 8_000),
        ("mp4", "aac", 44_100),
        ("mp4", "aac", 48_000),
        ("adts", "aac", 44_100),
        ("webm", "libopus", 48_000),
        ("mov", "pcm_s16le", 16_000),
        ("matroska", "libopus", 48_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_ffmpeg_reads_sounds_like_what_was_encoded(container: str, codec: str, rate: int, channels: int) -> None:
    samples = tone(1.0, rate, channels)
    actual, expected = heard(ffmpeg_clip(samples, rate, container, codec)), by_librosa(samples, rate)
    assert abs(len(actual) - len(expected)) < 0.2 * SAMPLE_RATE
    assert loudest_correlation(actual, expected) > 0.9


def test_amr_is_read() -> None:
    second = b"#!AMR\n" + (b"\x04" + bytes(12)) * 50
    assert len(heard(second)) == SAMPLE_RATE


def loudest_correlation(a: Samples, b: Samples) -> float:
    """Over all shifts, since codecs delay; 1 for the same sound."""
    size = 2 * max(len(a), len(b))
    both = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    return float(both.max() / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_mono_wav_at_16_khz_goes_through_untouched(subtype: str) -> None:
    data = clip(tone(0.5, 16_000), 16_000, subtype=subtype)
    assert prepare(data, LIMIT).pieces[0].base64 is None


def test_a_float_survives_to_the_last_bit_and_the_same_samples_give_the_same_bytes() -> None:
    samples = tone(0.5, 16_000)
    back, rate = soundfile.read(BytesIO(encode(samples)), dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.array_equal(back, samples)
    assert encode(samples) == encode(samples.copy())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"hello",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC" + b"\0" * 50,
        b"OggS" + b"\0" * 50,
        b"ID3" + b"\0" * 50,
        b"\xff\xfb" + b"\0" * 50,
        b"\xff\xf1" + b"\0" * 50,
        b"#!AMR\n",
        b"\x1aE\xdf\xa3" + b"\0" * 50,
        b"\0\0\0\x20ftypM4A " + b"\0" * 50,
        clip(tone(0, 16_000), 16_000),
        clip(tone(0.5, 16_000)[:1], 16_000),
        clip(tone(0.5, 16_000)[:639], 16_000),
        clip(np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT"),
        clip(np.full(16_000, np.inf, np.float32), 16_000, subtype="FLOAT"),
    ],
)
def test_what_is_no_clip_is_an_error(data: bytes) -> None:
    with pytest.raises(MediaError):
        prepare(data, LIMIT)


@pytest.mark.parametrize("kept", [0.01, 0.3])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus")])
def test_a_truncated_container_is_read_or_refused(container: str, codec: str, kept: float) -> None:
    data = ffmpeg_clip(tone(1.0, 48_000), 48_000, container, codec)
    try:
        assert len(heard(data[: int(len(data) * kept)])) < SAMPLE_RATE
    except MediaError as fault:
        assert "clip" in fault.message


def test_a_video_without_sound_is_an_error() -> None:
    with pytest.raises(MediaError, match="audio"):
        prepare(silent_video(), LIMIT)


def silent_video() -> bytes:
    import av

    target = BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_thirty_seconds_pass_and_one_sample_more_does_not(rate: int) -> None:
    samples = np.zeros(30 * rate + 1, np.float32)
    assert len(heard(clip(samples[:-1], rate, "FLAC"))) == 480_000
    with pytest.raises(MediaError, match="30 seconds"):
        prepare(clip(samples, rate, "FLAC"), LIMIT)


def test_a_bomb_is_not_unpacked() -> None:
    hours = clip(np.zeros(3_600 * 8_000, np.float32), 8_000, "FLAC")
    assert len(hours) < 300_000
    with pytest.raises(MediaError, match="30 seconds"):
        prepare(hours, LIMIT)


@pytest.mark.parametrize("rate", [1, 999, 400_000, 2_147_483_647])
def test_a_header_that_claims_an_absurd_rate_is_refused(rate: int) -> None:
    data = bytearray(clip(tone(0.5, 16_000), 16_000))
    data[24:28] = struct.pack("<I", rate)
    with pytest.raises(MediaError, match="sampling rate"):
        prepare(bytes(data), LIMIT)
