"""A look at the ends of an image says the same as decoding it, or says nothing."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import image
from gateway.media.header import Base64, Header, Plain, look
from gateway.settings import Family
from tests.media.samples import image_bytes, picture

SIZE = (57, 31)
ICC = bytes(range(256)) * 1024


def turned(kind: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image_bytes(kind, picture(size=SIZE), exif=exif)


def drawn(kind: str, mode: str = "RGB", **options: object) -> bytes:
    return image_bytes(kind, picture(mode, SIZE), **options)


SEEN = [
    (drawn("PNG"), "image/png"),
    (drawn("PNG", "L"), "image/png"),
    (drawn("PNG", "LA"), "image/png"),
    (drawn("PNG", "RGBA"), "image/png"),
    (drawn("PNG", "P"), "image/png"),
    (drawn("PNG", "1"), "image/png"),
    (drawn("PNG", "I;16"), "image/png"),
    (drawn("PNG", "RGB", transparency=(1, 2, 3)), "image/png"),
    (drawn("PNG", icc_profile=ICC), "image/png"),
    (turned("PNG"), "image/png"),
    (drawn("JPEG"), "image/jpeg"),
    (drawn("JPEG", "L"), "image/jpeg"),
    (drawn("JPEG", "CMYK"), "image/jpeg"),
    (drawn("JPEG", quality=95, subsampling=0, optimize=True), "image/jpeg"),
    (drawn("JPEG", icc_profile=ICC, comment=b"x" * 5000), "image/jpeg"),
    (turned("JPEG"), "image/jpeg"),
    (drawn("WEBP"), "image/webp"),
    (drawn("WEBP", lossless=True), "image/webp"),
    (drawn("WEBP", "RGBA"), "image/webp"),
    (drawn("WEBP", icc_profile=ICC), "image/webp"),
    (turned("WEBP"), "image/webp"),
]


@pytest.mark.parametrize(("data", "media_type"), SEEN)
def test_type_and_size_of_a_usual_image_are_seen(data: bytes, media_type: str) -> None:
    assert look(Plain(data)) == Header(media_type, *SIZE)


@pytest.mark.parametrize("data", [data for data, _ in SEEN])
def test_base64_is_seen_like_the_bytes_behind_it(data: bytes) -> None:
    for text in (base64.b64encode(data), memoryview(base64.b64encode(data))):
        assert look(Base64(text)) == look(Plain(data))


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(extra: bytes) -> bytes:
    """A PNG with one more chunk before its pixels."""
    data = drawn("PNG")
    return data[:33] + extra + data[33:]


PLAIN_JPEG = drawn("JPEG")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        b"RIFF\x04\0\0\0WEBP",
        drawn("GIF", "P"),
        drawn("BMP"),
        drawn("TIFF"),
        drawn("AVIF"),
        drawn("HEIF"),
        drawn("MPO", save_all=True, append_images=[picture("L", SIZE)]),
        drawn("JPEG", progressive=True),
        drawn("JPEG") + b"behind",
        drawn("JPEG").replace(b"\xff\xc0", b"\xff\xc1"),
        PLAIN_JPEG.replace(b"\xff\xc0", b"\xff\xfe\0\x02" * 70 + b"\xff\xc0"),
        PLAIN_JPEG[: PLAIN_JPEG.index(b"\xff\xc0")] + PLAIN_JPEG[PLAIN_JPEG.index(b"\xff\xda") :],
        drawn("PNG", "P", transparency=3),
        drawn("PNG", "L", transparency=7),
        drawn("PNG", save_all=True, append_images=[picture("L", SIZE)]),
        drawn("PNG") + b"behind",
        with_chunk(chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))),
        with_chunk(chunk(b"tEXt", b"a\0b") * 70),
        drawn("PNG").replace(b"IHDR", b"IHDr"),
        drawn("WEBP", save_all=True, append_images=[picture("L", SIZE)]),
        drawn("WEBP") + b"behind",
    ],
)
def test_what_is_unusual_is_left_to_a_closer_look(data: bytes) -> None:
    assert look(Plain(data)) is None
    assert look(Base64(base64.b64encode(data))) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_left_to_a_closer_look(kind: str) -> None:
    data = drawn(kind)
    assert [look(Plain(data[:end])) for end in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t[:40] + b"*" + t[41:], lambda t: t + b"\n\n\n\n"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_no_base64_is_left_to_a_closer_look(kind: str, spoil: object) -> None:
    assert callable(spoil)
    assert look(Base64(spoil(base64.b64encode(drawn(kind))))) is None


@dataclass
class Counted:
    """A source that notes how often it is read, and how much."""

    data: bytes
    reads: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return self.data[offset : offset + length]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe1\xff\xff".ljust(65_537, b"\0") * 200 + b"\xff\xd9",
        b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000 + b"\xff\xd9",
        drawn("PNG")[:33] + chunk(b"tEXt", bytes(5000)) * 1000 + drawn("PNG")[33:],
    ],
)
def test_a_hostile_file_costs_a_bounded_number_of_reads(data: bytes) -> None:
    source = Counted(data)
    assert look(source) is None
    assert len(source.reads) < 70
    assert sum(source.reads) < 60_000


def test_a_profile_before_the_size_is_hopped_over() -> None:
    source = Counted(drawn("JPEG", icc_profile=ICC, comment=b"x" * 5000))
    assert look(source) == Header("image/jpeg", *SIZE)
    assert sum(source.reads) < 10_000


MUTATED = [data for data, _ in SEEN if len(data) < 20_000]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A usual image with bytes changed, most of them in its header, and perhaps a piece doubled."""
    data = bytearray(draw(st.sampled_from(MUTATED)))
    places = st.integers(0, min(len(data), 900) - 1) | st.integers(0, len(data) - 1)
    for place in draw(st.lists(places, max_size=3)):
        data[place] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        start, end = sorted((draw(places), draw(places)))
        data[end:end] = data[start:end]
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=400, deadline=None)
@given(damaged())
def test_what_is_seen_is_what_decoding_finds_or_the_pixels_are_broken(data: bytes) -> None:
    found = look(Plain(data))
    if found is None or found.width * found.height > 10**6:
        return
    try:
        (piece,) = image.prepare(data, 10**6, Family.GEMMA3, None, shrink=False).pieces
    except MediaError as fault:
        assert not isinstance(fault, MediaTooLargeError)
        return
    assert (piece.media_type, piece.base64) == (found.media_type, None)
    assert look(Base64(base64.b64encode(data))) == found
