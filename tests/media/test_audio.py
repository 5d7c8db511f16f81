"""A clip becomes one WAV as the model hears it, and a long one what its policy says: never a silent cut."""

from __future__ import annotations

import base64
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import audio, budget
from gateway.media.audio import LONGEST, SHORTEST, encode
from gateway.media.prepared import Piece, Prepared
from gateway.media.sound import SAMPLE_RATE
from gateway.settings import Family, LongAudio, Modality
from tests.media import clips
from tests.media.samples import Samples, clip, image_bytes, tone

MINUTES = 1800.0


def prepare(
    data: bytes, policy: LongAudio = LongAudio.REJECT, max_seconds: float = MINUTES, max_pieces: int = 32
) -> Prepared:
    return audio.prepare(data, max_seconds, Family.GEMMA4, policy, max_pieces)


def samples_of(piece: Piece) -> Samples:
    assert piece.base64 is not None
    samples, rate = soundfile.read(BytesIO(base64.b64decode(piece.base64)), dtype="float32")
    assert (rate, samples.ndim, piece.media_type, piece.modality) == (SAMPLE_RATE, 1, "audio/wav", Modality.AUDIO)
    return np.asarray(samples)


def talk(seconds: float, rate: int = SAMPLE_RATE) -> Samples:
    """Noise with a pause of 0.4 s every 7 s."""
    noise = 0.1 * np.random.default_rng(3).standard_normal(round(seconds * rate))
    noise[np.arange(noise.size) % (7 * rate) < 0.4 * rate] *= 0.001
    return noise.astype(np.float32)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_mono_wav_at_16_khz_is_sent_as_it_came(subtype: str) -> None:
    (piece,) = prepare(clip(tone(0.5, 16_000), 16_000, subtype=subtype)).pieces
    assert piece == Piece(Modality.AUDIO, "audio/wav", None, budget.audio_tokens(8_000, Family.GEMMA4), 0.0, 0.5)


def test_anything_else_is_sent_as_a_wav_of_floats() -> None:
    prepared = prepare(clip(tone(0.5, 48_000, 2), 48_000))
    (piece,) = prepared.pieces
    assert (samples_of(piece).size, piece.seconds, piece.start) == (8_000, 0.5, 0.0)
    assert prepared.truncated is None


def test_a_float_survives_to_the_last_bit_and_the_same_samples_give_the_same_bytes() -> None:
    samples = tone(0.5, 16_000)
    back, rate = soundfile.read(BytesIO(encode(samples)), dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.array_equal(back, samples)
    assert encode(samples) == encode(samples.copy())


JPEG = image_bytes("JPEG")

MAGIC = [
    *(b"fLaC", b"OggS", b"ID3", b".snd", b"caff", b"FORM\0\0\0\0AIFF", b"RF64\0\0\0\0WAVE", b"RIFF\0\0\0\0AVI "),
    *(b"\xff\xfb", b"\xff\xf1", b"#!AMR\n", b"#!AMR-WB\n", b"\x1aE\xdf\xa3", b"\0\0\0\x20ftypM4A "),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
]

NO_CLIPS = {
    "nothing": b"",
    "zeros": b"\0" * 100,
    "text": b"hello",
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a picture": JPEG,
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a tag alone": b"ID3\x04\0\0\0\0\0\x20" + JPEG,
    "a tag that lies": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + b"\0" * 50,
    "WAV without chunks": b"RIFF\0\0\0\0WAVE",
    "WAV without samples": clip(tone(0, 16_000), 16_000),
    "one sample": clip(tone(0.5, 16_000)[:1], 16_000),
    "less than a token": clip(tone(0.5, 16_000)[: SHORTEST - 1], 16_000),
    "a film without sound": clips.silent_film(),
    "a codec of games": clips.by_ffmpeg("avi", "adpcm_swf")(tone(0.5, 22_050), 22_050),
    "a moving picture": image_bytes("GIF"),
    **{repr(magic): magic + b"\0" * 50 for magic in MAGIC},
}


@pytest.mark.parametrize("data", NO_CLIPS.values(), ids=NO_CLIPS.keys())
def test_what_is_no_clip_is_an_error_in_lower_case_without_a_full_stop(data: bytes) -> None:
    with pytest.raises(MediaError) as fault:
        prepare(data)
    assert fault.value.message[0].islower()
    assert not fault.value.message.endswith(".")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_thirty_seconds_pass_whole_by_every_policy(rate: int) -> None:
    data = clip(tone(30, rate), rate, "AU")
    for policy in LongAudio:
        prepared = prepare(data, policy)
        (piece,) = prepared.pieces
        assert (samples_of(piece).size, piece.seconds, prepared.truncated) == (LONGEST, 30, None)


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_one_sample_more_is_refused_by_length_limit_and_field(rate: int) -> None:
    with pytest.raises(MediaError, match=r"is 30\.000\d+ seconds long and the model hears 30.*long_audio") as fault:
        prepare(clip(np.append(tone(30, rate), 0), rate))
    assert fault.value.status == 400


def test_a_30_second_clip_is_not_refused_for_what_its_encoder_added() -> None:
    assert prepare(clips.FFMPEG["M4A AAC"][1](tone(30, 11_025), 11_025)).pieces[0].seconds == 30
    assert prepare(clips.LOSSY["MP3"](tone(30, 11_025), 11_025)).pieces[0].seconds == 30


def test_truncating_keeps_the_first_30_seconds_and_tells_the_whole_length() -> None:
    samples = talk(70.5, 48_000)
    prepared = prepare(clip(samples, 48_000, subtype="FLOAT"), LongAudio.TRUNCATE)
    (piece,) = prepared.pieces
    assert (prepared.truncated, piece.seconds, piece.tokens) == (70.5, 30, 752)
    whole = np.concatenate(
        [samples_of(p) for p in prepare(clip(samples, 48_000, subtype="FLOAT"), LongAudio.SPLIT).pieces]
    )
    np.testing.assert_array_equal(samples_of(piece), whole[:LONGEST])


@pytest.mark.parametrize("seconds", [30 + 1 / 16_000, 30.5, 61, 100])
def test_pieces_are_the_whole_in_order_and_none_is_too_long_or_too_short(seconds: float) -> None:
    samples = talk(seconds)
    pieces = prepare(clip(samples, SAMPLE_RATE, subtype="FLOAT"), LongAudio.SPLIT).pieces
    parts = [samples_of(piece) for piece in pieces]
    assert all(SHORTEST <= part.size <= LONGEST for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), samples)
    assert [piece.seconds for piece in pieces] == [part.size / SAMPLE_RATE for part in parts]
    assert [piece.start for piece in pieces] == [0, *np.cumsum([piece.seconds for piece in pieces])[:-1]]
    assert [piece.tokens for piece in pieces] == [budget.audio_tokens(part.size, Family.GEMMA4) for part in parts]


def test_more_pieces_than_allowed_are_refused_before_and_after_they_are_cut() -> None:
    data = clip(talk(100), SAMPLE_RATE)
    count = len(prepare(data, LongAudio.SPLIT).pieces)
    assert count == 4
    for allowed in (1, count - 1):
        with pytest.raises(MediaTooLargeError, match=rf"is 100 seconds long.* {allowed} \(media.max_clips\)"):
            prepare(data, LongAudio.SPLIT, max_pieces=allowed)
    assert len(prepare(data, LongAudio.SPLIT, max_pieces=count).pieces) == count


@pytest.mark.parametrize("policy", LongAudio)
def test_a_clip_over_the_limit_in_seconds_is_too_large_by_every_policy(policy: LongAudio) -> None:
    with pytest.raises(MediaTooLargeError, match=r"40 seconds \(media.max_audio_seconds\)"):
        prepare(clip(talk(41), SAMPLE_RATE), policy, max_seconds=40)


def test_a_file_that_names_others_opens_none_of_them(tmp_path: Path) -> None:
    """What they name is a pipe, which to open would wait for ever."""
    heard = tmp_path / "heard.wav"
    os.mkfifo(heard)
    scripts = [
        f"#EXTM3U\n#EXTINF:1,\n{heard}\n",
        f"ffconcat version 1.0\nfile '{heard}'\n",
        f"<MPD><Period><BaseURL>file://{heard}</BaseURL></Period></MPD>",
        f"[playlist]\nFile1={heard}\n",
        f"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\ni={heard}\n",
    ]
    for script in scripts:
        with pytest.raises(MediaError, match="known format"):
            prepare(script.encode())
