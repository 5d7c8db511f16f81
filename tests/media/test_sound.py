"""Clips of every format become 16 kHz mono, with the samples that soxr makes at its very high quality."""

from __future__ import annotations

import struct
from io import BytesIO

import av
import numpy as np
import pytest
import soundfile
import soxr

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media.sound import SAMPLE_RATE, Sound, decode
from tests.media import clips
from tests.media.clips import FFMPEG, LOSSLESS, LOSSY, Encoder, decibels
from tests.media.samples import Samples, clip, tone

#: dB, of the difference to the reference in relation to it.
CLOSE = -60

STEREO = tone(0.5, 48_000, 2)


def heard(data: bytes, max_seconds: float = 30) -> Samples:
    return decode(data, max_seconds, max_seconds).samples


def reference(samples: Samples, rate: int) -> Samples:
    """(samples, channels) at `rate`, in one go and with 64 bits."""
    mono = samples.astype(np.float64).reshape(len(samples), -1).mean(axis=1)
    return np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="VHQ"), np.float32)


def by_ffmpeg(data: bytes, demuxer: str) -> tuple[Samples, int]:
    with av.open(BytesIO(data), format=demuxer) as container:
        frames = list(container.decode(audio=0))
    planar = [
        frame.to_ndarray() if frame.format.is_planar else frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
        for frame in frames
    ]
    scale = 2.0 ** (8 * frames[0].format.bytes - 1) if "s" in frames[0].format.name else 1
    return (np.concatenate(planar, axis=1).T / scale).astype(np.float32), frames[0].sample_rate


SNDFILE = {**LOSSLESS, **LOSSY}


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name in SNDFILE for rate in clips.rates(name)])
def test_what_libsndfile_decodes_is_resampled_as_the_reference(name: str, rate: int) -> None:
    data = SNDFILE[name](tone(0.5, rate, 2), rate)
    assert decibels(heard(data), reference(*soundfile.read(BytesIO(data), dtype="float32"))) < CLOSE


@pytest.mark.parametrize(("name", "rate"), [(name, rate) for name in FFMPEG for rate in clips.rates(name)])
def test_what_ffmpeg_decodes_is_resampled_as_the_reference(name: str, rate: int) -> None:
    demuxer, encode = FFMPEG[name]
    data = encode(tone(0.5, rate, 2), rate)
    actual, expected = heard(data), reference(*by_ffmpeg(data, demuxer))
    if demuxer == "mov":
        assert -0.03 * SAMPLE_RATE < len(actual) - len(expected) <= 0
        actual, expected = actual[:-200], expected[: len(actual) - 200]
    assert decibels(actual, expected) < CLOSE


@pytest.mark.parametrize("name", ["MP3", "OGG Vorbis", "OGG Opus", "FLAC 16 bit"])
def test_libsndfile_and_ffmpeg_agree(name: str) -> None:
    data = (SNDFILE.get(name) or FFMPEG[name][1])(STEREO, 48_000)
    demuxer = {"MP3": "mp3", "FLAC 16 bit": "flac"}.get(name, "ogg")
    one, other = reference(*soundfile.read(BytesIO(data), dtype="float32")), reference(*by_ffmpeg(data, demuxer))
    assert decibels(heard(data), one) < CLOSE
    assert decibels(heard(data), other) < CLOSE


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_number_of_channels_equals_the_reference(rate: int, channels: int) -> None:
    samples = tone(0.5, rate, channels)
    assert decibels(heard(clip(samples, rate, subtype="FLOAT")), reference(samples, rate)) < CLOSE


def test_five_channels_and_a_deep_one_are_mixed_from_aac_too() -> None:
    samples = tone(0.5, 48_000, 6)
    data = clips.by_ffmpeg("ipod", "aac")(samples, 48_000)
    assert len(heard(data)) == 8_000
    assert decibels(heard(data), reference(*by_ffmpeg(data, "mov"))[:8_000]) < CLOSE


@pytest.mark.parametrize("name", ["M4A AAC", "M4A ALAC", "MP4 film", "WebM Opus", "OGG Opus", "MP3", "OGG Vorbis"])
def test_what_encoders_put_before_and_behind_is_dropped_where_the_file_tells_it(name: str) -> None:
    encode = LOSSY.get(name) or FFMPEG[name][1]
    samples = tone(2, 48_000)
    actual, expected = heard(encode(samples, 48_000)), reference(samples, 48_000)
    assert actual.shape == expected.shape
    assert decibels(actual[800:-800], expected[800:-800]) < -10


def test_amr_is_read() -> None:
    narrow = heard(clips.AMR(tone(1, 8_000), 8_000))
    assert abs(len(narrow) - SAMPLE_RATE) <= 640
    assert len(heard(clips.wide_band_amr(1))) == SAMPLE_RATE


@pytest.mark.parametrize("encode", [clips.by_sndfile("MP3"), clips.by_ffmpeg("adts", "aac"), LOSSLESS["FLAC 16 bit"]])
def test_a_tag_with_a_picture_before_the_sound_is_skipped(encode: Encoder) -> None:
    data, picture = encode(STEREO, 48_000), b"\xff\xfb\x90\x00 a picture that looks like sound" * 1_000
    tag = b"ID3\x04\0\0" + bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0)) + picture
    assert np.array_equal(heard(tag + data), heard(data))


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("form", [0, 36, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_is_read_to_its_end(length: int, form: int) -> None:
    whole = bytearray(clip(STEREO, 48_000))
    expected = heard(bytes(whole))
    whole[4:8], whole[40:44] = struct.pack("<I", form), struct.pack("<I", length)
    assert np.array_equal(heard(bytes(whole)), expected)


def flac_of(frames: int) -> bytes:
    """Half a second whose header says something else."""
    data = bytearray(clip(STEREO, 48_000, "FLAC"))
    kept = int.from_bytes(data[18:26], "big") >> 36 << 36
    data[18:26] = (kept | frames).to_bytes(8, "big")
    return bytes(data)


def test_a_flac_from_a_pipe_is_read_to_its_end() -> None:
    assert np.array_equal(heard(flac_of(0)), heard(clip(STEREO, 48_000, "FLAC")))


def test_a_webm_from_a_browser_without_lengths_is_read_to_its_end() -> None:
    data = FFMPEG["WebM Opus"][1](STEREO, 48_000)
    at = data.index(b"\x18\x53\x80\x67") + 4
    assert np.array_equal(heard(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]), heard(data))


CUT = {**SNDFILE, **{name: encode for name, (_, encode) in FFMPEG.items()}}
#: Their containers tell nothing of their length.
SILENT_ON_LENGTH = ("AAC ADTS", "MPEG-TS film", "WMA")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", [name for name in CUT if name not in SILENT_ON_LENGTH])
def test_a_clip_that_was_cut_off_is_an_error(name: str, kept: float) -> None:
    data = CUT[name](tone(2, 48_000, 2), 48_000)
    with pytest.raises(MediaError, match="truncated"):
        heard(data[: int(len(data) * kept)])


@pytest.mark.parametrize("name", SILENT_ON_LENGTH)
def test_what_tells_no_length_is_read_as_far_as_it_goes_or_refused(name: str) -> None:
    data = CUT[name](tone(2, 48_000, 2), 48_000)
    try:
        assert len(heard(data[: len(data) // 2])) < 1.2 * SAMPLE_RATE
    except MediaError as fault:
        assert "truncated" in fault.message


def test_an_mp4_that_tells_of_more_samples_than_it_has_bytes_is_an_error() -> None:
    data = bytearray(FFMPEG["M4A AAC"][1](STEREO, 48_000))
    sizes = data.index(b"stsz")
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, 9 * len(data))
    with pytest.raises(MediaError, match="truncated: its container goes on"):
        heard(bytes(data))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "RF64", "AU"])
def test_bytes_behind_the_sound_do_not_matter(kind: str) -> None:
    data = clip(STEREO, 48_000, kind)
    assert len(heard(data + b"junk")) == pytest.approx(8_000, abs=1)


LIES = {
    "10 hours of FLAC": flac_of(36_000 * 48_000),
    "no channels": clip(STEREO, 48_000)[:22] + b"\0\0" + clip(STEREO, 48_000)[24:],
    "length beyond the end": clip(STEREO, 48_000)[:40] + struct.pack("<I", 50_000_000) + clip(STEREO, 48_000)[44:],
    "no format": clip(STEREO, 48_000).replace(b"fmt ", b"fmtx"),
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_is_an_error(data: bytes) -> None:
    with pytest.raises(MediaError, match="truncated"):
        heard(data)


@pytest.mark.parametrize("rate", [1, 999, 400_000, 2_147_483_647])
def test_a_header_that_claims_an_absurd_rate_is_refused(rate: int) -> None:
    data = bytearray(clip(STEREO, 16_000))
    data[24:28] = struct.pack("<I", rate)
    with pytest.raises(MediaError, match="sampling rate"):
        heard(bytes(data))


SILENT = {
    "nothing": np.zeros(16_000),
    "a constant": np.full(16_000, 0.5),
    "less than a step of 16 bits": 2.0**-17 * np.sin(np.arange(16_000)),
    "channels that undo each other": np.stack([tone(1, 16_000), -tone(1, 16_000)], -1),
}


@pytest.mark.parametrize("samples", SILENT.values(), ids=SILENT.keys())
def test_silence_is_an_error(samples: Samples) -> None:
    with pytest.raises(MediaError, match="silent"):
        heard(clip(samples.astype(np.float32), 16_000, subtype="FLOAT"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_an_error(value: float) -> None:
    samples = tone(0.5, 44_100)
    samples[12_345] = value
    with pytest.raises(MediaError, match="not numbers"):
        heard(clip(samples, 44_100, subtype="FLOAT"))


def test_one_step_of_16_bits_is_sound() -> None:
    samples = np.zeros(16_000, np.float32)
    samples[::2] = 2.0**-15
    assert len(heard(clip(samples, 16_000))) == 16_000


def bomb() -> bytes:
    """Two hours of next to nothing in some 100 kB."""
    samples = np.zeros(7_200 * 8_000, np.int16)
    samples[0] = 1
    target = BytesIO()
    soundfile.write(target, samples, 8_000, format="FLAC")
    return target.getvalue()


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(MediaTooLargeError, match=r"30 seconds \(media.max_audio_seconds\)"):
        heard(bomb())


def test_what_is_not_kept_is_counted() -> None:
    data = clip(tone(10, 44_100), 44_100)
    sound = decode(data, 30, kept_seconds=2)
    assert sound.seconds == 10
    assert 2 * SAMPLE_RATE <= len(sound.samples) < 9 * SAMPLE_RATE
    few = len(sound.samples) - 200
    assert decibels(sound.samples[:few], heard(data)[:few]) < -90


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_mono_wav_at_16_khz_is_ready(subtype: str) -> None:
    assert ready(clip(tone(0.5, 16_000), 16_000, subtype=subtype))


@pytest.mark.parametrize(
    "data",
    [
        clip(tone(0.5, 16_000, 2), 16_000),
        clip(tone(0.5, 44_100), 44_100),
        clip(tone(0.5, 16_000), 16_000, subtype="DOUBLE"),
        clip(tone(0.5, 16_000), 16_000, subtype="ULAW"),
        clip(tone(0.5, 16_000), 16_000, "FLAC"),
    ],
)
def test_everything_else_is_not(data: bytes) -> None:
    assert not ready(data)


def ready(data: bytes) -> bool:
    sound: Sound = decode(data, 30, 30)
    return sound.ready
