"""Films become the frames that vLLM would pick, each with its true time, whatever they are stored in."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from gateway.errors import MediaError
from gateway.media import video
from gateway.media.budget import image_size, video_tokens
from gateway.media.video import common_rate
from gateway.settings import Family, LongAudio, Modality
from tests.media.films import SIZE, drawn, evenly, film, limits, milliseconds, numbers, shown
from tests.media.samples import tone

STORED = {
    "H.264 in MP4": {},
    "H.264 in fragments": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "H.264 in MOV, 4:4:4": {"container": "mov", "pixel_format": "yuv444p"},
    "H.264 in MPEG-TS": {"container": "mpegts"},
    "HEVC in MP4": {"codec": "libx265"},
    "HEVC in Matroska, ten bits": {"container": "matroska", "codec": "libx265", "pixel_format": "yuv420p10le"},
    "AV1 in MP4": {"codec": "libsvtav1"},
    "VP8 in WebM": {"container": "webm", "codec": "libvpx"},
    "VP9 in WebM": {"container": "webm", "codec": "libvpx-vp9"},
    "VP9 with alpha": {"container": "webm", "codec": "libvpx-vp9", "pixel_format": "yuva420p"},
    "MPEG-4 in AVI": {"container": "avi", "codec": "mpeg4"},
    "MPEG-4 in AVI, with B-frames": {"container": "avi", "codec": "mpeg4", "options": {"bf": "2"}},
    "MPEG-2 in MPEG-TS": {"container": "mpegts", "codec": "mpeg2video", "options": {"bf": "2"}},
    "MJPEG in AVI": {"container": "avi", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "FFV1 in Matroska": {"container": "matroska", "codec": "ffv1", "pixel_format": "bgr0"},
    "GIF": {"container": "gif", "codec": "gif", "pixel_format": "rgb8"},
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED.keys())
def test_the_frames_are_those_that_vllm_would_pick_with_their_times(stored: dict[str, Any]) -> None:
    prepared = video.prepare(film(frames=50, **stored), limits(max_frames=8))

    assert numbers(prepared) == evenly(50, 8)
    assert milliseconds(prepared) == pytest.approx([1000 * number / 24 for number in evenly(50, 8)], abs=11)
    assert prepared.pieces[0].seconds == pytest.approx(50 / 24, abs=0.02)
    assert {frame.size for frame in shown(prepared)} == {SIZE}


def test_the_piece_is_a_list_of_pictures_that_vllm_takes_for_a_video() -> None:
    prepared = video.prepare(film(frames=3), limits())

    [piece] = prepared.pieces
    assert (piece.modality, piece.media_type) == (Modality.VIDEO, "video/jpeg")
    assert piece.tokens == video_tokens(*SIZE, [0, 1 / 24, 2 / 24])
    assert [frame.format for frame in shown(prepared)] == ["WEBP"] * 3


GOPS = {
    "H.264": {"options": {"bf": "3", "g": "25", "b_pyramid": "normal"}},
    "H.264, open": {"options": {"bf": "3", "x264-params": "open-gop=1:keyint=25"}},
    "H.264, refreshed by parts": {"options": {"x264-params": "intra-refresh=1:keyint=15"}},
    "H.264, interlaced": {"options": {"x264-params": "interlaced=1:keyint=25"}, "size": (128, 96)},
    "HEVC, open": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=25:open-gop=1"}},
    "MPEG-2": {"container": "mpegts", "codec": "mpeg2video", "options": {"bf": "2"}},
    "VP8": {"container": "webm", "codec": "libvpx", "options": {"g": "25", "auto-alt-ref": "1", "lag-in-frames": "9"}},
    "VP9": {"container": "webm", "codec": "libvpx-vp9", "options": {"g": "25", "deadline": "good"}},
    "AV1": {"codec": "libsvtav1", "options": {"g": "25"}},
}


@pytest.mark.parametrize("stored", GOPS.values(), ids=GOPS.keys())
def test_skipping_what_is_not_needed_changes_no_pixel(stored: dict[str, Any]) -> None:
    data = film(frames=60, **stored)
    with av.open(BytesIO(data)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    prepared = video.prepare(data, limits(max_frames=9))

    for number, frame in zip(evenly(60, 9), shown(prepared), strict=True):
        np.testing.assert_array_equal(np.asarray(frame.convert("RGB")), whole[number])


def test_frames_that_an_edit_hides_are_not_shown() -> None:
    """As of a film that was cut without encoding it anew: it is stored from the key frame before."""
    cut_film = BytesIO()
    with (
        av.open(BytesIO(film(frames=60, options={"g": "30"}))) as source,
        av.open(cut_film, "w", format="mp4", options={"avoid_negative_ts": "disabled"}) as output,
    ):
        track = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (time - 10 * 512 for time in (packet.pts, packet.dts))
                packet.stream = track
                output.mux(packet)

    prepared = video.prepare(cut_film.getvalue(), limits(max_frames=5))

    assert numbers(prepared) == [10, 22, 34, 46, 59]
    assert milliseconds(prepared)[0] == 0


def test_frames_larger_than_the_model_sees_come_at_its_size_resampled_as_it_does() -> None:
    stored = film("matroska", "ffv1", frames=2, size=(800, 450), pixel_format="bgr0")
    width, height = image_size(800, 450, Family.GEMMA4, 70)

    frames = shown(video.prepare(stored, limits()))

    expected = Image.fromarray(drawn(1, (800, 450))).resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(frames[1].convert("RGB")), np.asarray(expected))


@pytest.mark.parametrize("size", [(2, 2), (33, 77), (16, 1000)])
def test_small_odd_and_stretched_frames_are_sent_as_they_are(size: tuple[int, int]) -> None:
    stored = film("matroska", "ffv1", frames=1, size=size, pixel_format="bgr0")
    assert [frame.size for frame in shown(video.prepare(stored, limits()))] == [size]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_film_is_turned_as_its_display_matrix_says(rotation: int, turns: int) -> None:
    picture = drawn(5)
    stored = film(frames=[picture], rotation=rotation, pixel_format="yuv444p", options={"qp": "0"})

    [frame] = shown(video.prepare(stored, limits()))

    difference = np.asarray(frame.convert("RGB"), dtype=int) - np.rot90(picture, turns)
    assert np.abs(difference).max() < 16


def test_the_shape_of_pixels_is_left_as_stored_as_vllm_does() -> None:
    stored = film(frames=1, aspect=Fraction(16, 11))
    assert shown(video.prepare(stored, limits()))[0].size == SIZE


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_frames_of_an_uneven_film_keep_their_true_times(container: str) -> None:
    times = [0, 40, 80, 5000, 61_250, 61_300]

    prepared = video.prepare(film(container, frames=6, times=times), limits())

    assert numbers(prepared) == [0, 1, 2, 3, 4, 5]
    assert milliseconds(prepared) == pytest.approx(times, abs=1)


def test_a_film_that_starts_late_starts_at_zero() -> None:
    prepared = video.prepare(film("mpegts", frames=3, times=[9000, 10_000, 11_000]), limits())
    assert milliseconds(prepared) == [0, 1000, 2000]


def test_options_are_what_vllm_checks_even_where_the_times_are_nonsense() -> None:
    options = video.prepare(film(frames=10, rate=100_000, muxer={"use_editlist": "0"}), limits()).options

    indices: Any = options["frames_indices"]
    assert len(indices) == 10
    assert indices == sorted(indices)
    assert options["total_num_frames"] == max(10, indices[-1] + 1)


def test_one_frame_is_a_film() -> None:
    prepared = video.prepare(film(frames=1), limits())
    assert numbers(prepared) == milliseconds(prepared) == [0]


def test_a_film_costly_to_decode_is_shown_by_key_frames_near_the_others_with_their_own_times() -> None:
    stored = film(frames=100, options={"g": "10", "keyint_min": "10", "sc_threshold": "0"})

    prepared = video.prepare(stored, limits(max_frames=5, exact_pixels=1000))

    assert numbers(prepared) == [0, 20, 50, 70, 90]
    assert milliseconds(prepared) == [1000 * number // 24 for number in (0, 20, 50, 70, 90)]


def test_without_key_frames_nearby_the_others_are_decoded_all_the_same() -> None:
    prepared = video.prepare(film(frames=60, options={"g": "600"}), limits(max_frames=4, exact_pixels=1000))
    assert numbers(prepared) == evenly(60, 4)


@pytest.mark.parametrize(
    ("durations", "frames", "rate"), [([10, 2], 32, 3.2), ([300, 300], 30, 0.1), ([0.5, 1], 32, 24), ([0], 32, 24)]
)
def test_the_common_rate_shows_the_longest_film_whole(durations: Sequence[float], frames: int, rate: float) -> None:
    assert common_rate(durations, frames) == pytest.approx(rate)


@pytest.mark.parametrize(("frames", "rate", "expected"), [(48, 4.0, range(0, 48, 6)), (24, 1.0, [0]), (96, 12, None)])
def test_at_a_rate_the_frames_are_those_on_screen_at_each_step(frames: int, rate: float, expected: Any) -> None:
    prepared = video.prepare(film(frames=frames), limits(), rate)

    assert prepared.options == {"fps": rate}
    assert numbers(prepared) == list(expected if expected is not None else range(0, 64, 2))


def test_at_a_rate_a_slow_film_repeats_the_frame_that_stays_on_screen() -> None:
    prepared = video.prepare(film(frames=3, rate=2), limits(), 4.0)

    assert numbers(prepared) == [0, 0, 1, 1, 2, 2]
    assert prepared.pieces[0].tokens == video_tokens(*SIZE, [0, 0.25, 0.5, 0.75, 1.0, 1.25])


@pytest.mark.parametrize("rate", [None, 2.0])
def test_the_length_is_what_was_probed(rate: float | None) -> None:
    stored = film(frames=36)
    assert video.probe(stored, limits()) == video.prepare(stored, limits(), rate).pieces[0].seconds == 1.5


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "mov"])
def test_the_sound_follows_the_frames_where_it_is_wanted(container: str) -> None:
    stored = film(container, sound=tone(1.0, 16_000))

    silent, heard = (video.prepare(stored, limits(audio=audio)) for audio in (None, LongAudio.REJECT))

    assert [piece.modality for piece in silent.pieces] == [Modality.VIDEO]
    assert [piece.modality for piece in heard.pieces] == [Modality.VIDEO, Modality.AUDIO]
    assert heard.pieces[1].seconds == pytest.approx(1.0, abs=0.15)
    assert heard.options == silent.options


def test_long_sound_is_split_as_a_clip_is() -> None:
    stored = film(frames=35, rate=1, sound=tone(35.0, 16_000))

    prepared = video.prepare(stored, limits(audio=LongAudio.SPLIT))

    assert [piece.modality for piece in prepared.pieces] == [Modality.VIDEO, Modality.AUDIO, Modality.AUDIO]
    with pytest.raises(MediaError, match="long_audio"):
        video.prepare(stored, limits(audio=LongAudio.REJECT))
    assert video.prepare(stored, limits(audio=LongAudio.TRUNCATE)).truncated == pytest.approx(35, abs=0.2)


@pytest.mark.parametrize(
    "sound",
    [None, np.zeros(16_000, np.float32), tone(0.01, 16_000)],
    ids=["missing", "silent", "too short to be heard"],
)
def test_sound_that_is_missing_or_silent_is_no_error(sound: Any) -> None:
    prepared = video.prepare(film(sound=sound), limits(audio=LongAudio.REJECT))
    assert [piece.modality for piece in prepared.pieces] == [Modality.VIDEO]


def test_what_goes_to_a_worker_and_comes_back_can_be_sent() -> None:
    given_limits = limits(audio=LongAudio.SPLIT)
    prepared = video.prepare(film(frames=2), given_limits)

    assert pickle.loads(pickle.dumps(given_limits)) == given_limits  # noqa: S301 our own
    assert pickle.loads(pickle.dumps(prepared)) == prepared  # noqa: S301 our own
