"""What is no film, is broken or too much is refused with a reason; what is a little broken is shown all the same."""

from __future__ import annotations

import re
import socket
from io import BytesIO
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import video
from tests.media.films import SIZE, drawn, film, limits, milliseconds, numbers, shown
from tests.media.samples import clip, image_bytes, tone


def cut(stored: bytes) -> bytes:
    return stored[: len(stored) * 6 // 10]


def cover_art() -> bytes:
    """A sound with a picture, which players show in its place."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16_000, layout="mono")
        picture = output.add_stream("mjpeg")
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(tone(1.0, 16_000)[None, :1024], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
        output.mux(picture.encode(av.VideoFrame.from_ndarray(drawn(1, (64, 48)), format="rgb24")))
    return buffer.getvalue()


FAST_START = {"movflags": "faststart"}
BAD = {
    "nothing": (b"", "empty"),
    "text": (b"hello", "no video of a known format"),
    "text that begins like MPEG-TS": (b"Go on!", "no video of a known format"),
    "an image": (image_bytes("PNG"), "no video of a known format"),
    "a clip": (clip(tone(0.5, 16_000), 16_000), "no video of a known format"),
    "a concat script": (b"ffconcat version 1.0\nfile /etc/passwd\n", "no video of a known format"),
    "only a head": (b"\0\0\0\x18ftypmp42" + bytes(100), "truncated or corrupt"),
    "cut MP4": (cut(film()), "truncated"),
    "cut MP4, index first": (cut(film(muxer=FAST_START)), "truncated"),
    "cut Matroska": (cut(film("matroska")), "truncated"),
    "cut AVI": (cut(film("avi", "mpeg4")), "truncated"),
    "only sound": (cover_art().replace(b"vmhd", b"smhd"), "no video track|truncated"),
    "sound with a picture": (cover_art(), "no video track"),
    "a codec that is not read": (film("avi", "wmv2"), "not supported"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_whole_film_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        video.prepare(data, limits())


def test_a_playlist_opens_nothing_under_whatever_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/film.ts"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n".encode()
        for data in (playlist, b"\0\0\0\x18ftypmp42" + playlist, b"\x1aE\xdf\xa3" + playlist):
            with pytest.raises(MediaError):
                video.prepare(data, limits())
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


LIMITS = {
    "seconds": (
        film(frames=4, rate=1),
        {"max_seconds": 3},
        "4.0 seconds; the limit is 3 (media.max_video_seconds)",
    ),
    "frames": (film(frames=30, rate=1000), {"max_seconds": 0.1}, "may last (media.max_video_seconds)"),
    "pixels": (
        film(frames=1),
        {"max_pixels": 10_799},
        "10800 pixels; the limit is 10799 (media.max_image_pixels)",
    ),
}


@pytest.mark.parametrize(("data", "changes", "message"), LIMITS.values(), ids=LIMITS.keys())
def test_each_limit_is_named_with_its_setting(data: bytes, changes: dict[str, Any], message: str) -> None:
    for step in (video.prepare, video.probe):
        with pytest.raises(MediaTooLargeError, match=re.escape(message)):
            step(data, limits(**changes))


def test_frames_that_change_size_on_the_way_are_fitted_to_the_first() -> None:
    later = [2000 + 42 * number for number in range(24)]
    stored = film("mpegts") + film("mpegts", size=(240, 180), times=later)

    prepared = video.prepare(stored, limits(max_frames=48))

    assert {frame.size for frame in shown(prepared)} == {SIZE}
    assert numbers(prepared) == [*range(24), *range(24)]


def test_frames_that_grow_over_the_limit_on_the_way_are_not_decoded() -> None:
    later = [2000 + 42 * number for number in range(48)]
    stored = film("mpegts") + film("mpegts", frames=48, size=(320, 240), times=later)

    with pytest.raises(MediaError, match=r"become larger than 20000 pixels \(media\.max_image_pixels\)"):
        video.prepare(stored, limits(max_pixels=20_000))


def test_a_header_that_tells_ten_hours_of_a_second_is_not_believed() -> None:
    stored = bytearray(film())
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20)):
        place = stored.index(box) + offset
        stored[place : place + 4] = (36_000_000).to_bytes(4, "big")

    assert video.probe(bytes(stored), limits()) == 1.0
    assert len(numbers(video.prepare(bytes(stored), limits()))) == 24


def test_a_table_that_tells_a_million_frames_of_a_small_file_is_refused() -> None:
    """Every length is that of a frame of one byte: this is where an index would grow to gigabytes."""
    stored = bytearray(film(muxer=FAST_START))
    million = (1 << 20).to_bytes(4, "big")
    for box, offset, value in ((b"stsz", 8, (1).to_bytes(4, "big") + million), (b"stsc", 16, million)):
        place = stored.index(box) + offset
        stored[place : place + len(value)] = value

    with pytest.raises(MediaError, match="truncated: its container goes on"):
        video.prepare(bytes(stored), limits())


def spoiled(stored: bytes, share: float) -> bytes:
    """The film with the pictures in the first part of it overwritten."""
    data = bytearray(stored)
    with av.open(BytesIO(stored)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in places[: int(share * len(places))]:
        data[place : place + size] = bytes(size)
    return bytes(data)


def test_broken_frames_are_left_out_and_the_others_keep_their_times() -> None:
    stored = film("avi", "mjpeg", pixel_format="yuvj420p")

    prepared = video.prepare(spoiled(stored, 0.25), limits())

    assert numbers(prepared) == list(range(6, 24))
    assert milliseconds(prepared) == [1000 * number // 24 for number in range(6, 24)]


def test_a_film_of_mostly_broken_frames_is_refused() -> None:
    with pytest.raises(MediaError, match="truncated or corrupt"):
        video.prepare(spoiled(film("avi", "mjpeg", pixel_format="yuvj420p"), 0.75), limits())


WHOLE = [film(frames=8), film("webm", "libvpx-vp9", frames=8), film("avi", "mpeg4", frames=8), film("mpegts", frames=8)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=9))
def test_flipped_bytes_give_a_film_or_a_clear_error(stored: bytes, flips: list[tuple[int, int]]) -> None:
    data = bytearray(stored)
    for place, value in flips:
        data[place % len(data)] = value
    try:
        prepared = video.prepare(bytes(data), limits())
    except MediaError as fault:
        assert fault.message[0].islower()
        assert not fault.message.endswith(".")
    else:
        assert 1 <= len(numbers(prepared)) <= 32
