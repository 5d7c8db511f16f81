"""Images reach the engine as transformers would see them, untouched where the engine sees the same."""

from __future__ import annotations

import base64
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import budget, image
from gateway.settings import Family
from tests.media.samples import image_bytes, picture

LIMIT = 1_000_000


def prepare(data: bytes, limit: int = LIMIT) -> tuple[str, bytes]:
    """Media type and bytes that reach the engine, where nothing is shrunk."""
    (piece,) = image.prepare(data, limit, Family.GEMMA4, None, shrink=False).pieces
    return piece.media_type, data if piece.base64 is None else base64.b64decode(piece.base64)


def shrunk(data: bytes, family: Family = Family.GEMMA4, max_soft_tokens: int | None = None) -> Image.Image:
    """What reaches the engine, where images are shrunk."""
    (piece,) = image.prepare(data, 10**8, family, max_soft_tokens, shrink=True).pieces
    return Image.open(BytesIO(data if piece.base64 is None else base64.b64decode(piece.base64)))


def seen(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What transformers makes of an encoded image."""
    image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    image.info.pop("transparency", None)
    return np.asarray(image.convert("RGB"))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_bytes("JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (image_bytes("PNG"), "image/png"),
        (image_bytes("PNG", picture("L")), "image/png"),
        (image_bytes("PNG", picture("1")), "image/png"),
        (image_bytes("PNG", picture("P")), "image/png"),
        (image_bytes("PNG", picture("RGBA")), "image/png"),
        (image_bytes("PNG", picture("LA")), "image/png"),
        (image_bytes("PNG", picture("I;16")), "image/png"),
        (image_bytes("JPEG"), "image/jpeg"),
        (image_bytes("JPEG", picture("CMYK")), "image/jpeg"),
        (rotated(), "image/jpeg"),
        (image_bytes("MPO"), "image/jpeg"),
        (image_bytes("WEBP"), "image/webp"),
        (image_bytes("GIF", picture("P")), "image/gif"),
        (image_bytes("GIF", picture("P"), save_all=True, append_images=[picture("P")]), "image/gif"),
        (image_bytes("PNG", picture(size=(1, 1))), "image/png"),
    ],
)
def test_what_the_engine_reads_well_goes_through_untouched(data: bytes, media_type: str) -> None:
    prepared = prepare(data)
    assert prepared[0] == media_type
    assert prepared[1] is data


@pytest.mark.parametrize(
    "data",
    [
        image_bytes("BMP"),
        image_bytes("TIFF"),
        image_bytes("TIFF", picture("CMYK")),
        image_bytes("TIFF", picture("F")),
        image_bytes("TIFF", picture("I;16")),
        image_bytes("PPM"),
        image_bytes("JPEG2000"),
        image_bytes("AVIF"),
        image_bytes("HEIF", quality=90),
        image_bytes("PNG", picture("P"), transparency=3),
        image_bytes("PNG", picture("P"), transparency=bytes(range(256))),
        image_bytes("PNG", picture("L"), transparency=7),
        image_bytes("GIF", picture("P"), transparency=picture("P").getpixel((5, 5))),
    ],
)
def test_everything_else_becomes_a_lossless_webp_of_the_same_pixels(data: bytes) -> None:
    media_type, encoded = prepare(data)
    assert media_type == "image/webp"
    assert Image.open(BytesIO(encoded)).format == "WEBP"
    assert np.array_equal(seen(encoded), seen(data))


def test_an_alpha_channel_survives_so_that_the_engine_paints_it_on_white() -> None:
    _, encoded = prepare(image_bytes("TIFF", picture("RGBA")))
    assert Image.open(BytesIO(encoded)).mode == "RGBA"


def test_a_rotated_tiff_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _, encoded = prepare(image_bytes("TIFF", exif=exif))
    assert Image.open(BytesIO(encoded)).size == (24, 40)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_an_error(kind: str, kept: float) -> None:
    data = image_bytes(kind, picture(size=(200, 200)))
    with pytest.raises(MediaError):
        prepare(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"%PDF-1.4"],
)
def test_what_is_no_image_is_an_error(data: bytes) -> None:
    with pytest.raises(MediaError):
        prepare(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bit_flips_are_read_or_refused_but_never_break_out() -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA"):
        data = np.frombuffer(image_bytes(kind, picture(size=(60, 60))), np.uint8)
        for _ in range(20):
            broken = data.copy()
            broken[random.integers(0, len(data), 8)] ^= np.uint8(1) << random.integers(0, 8, 8, np.uint8)
            try:
                prepare(broken.tobytes())
            except MediaError:
                continue


def bomb(width: int, height: int) -> bytes:
    """A PNG of these dimensions and hardly any bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start, end = chunk(b"IHDR", header), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + end


@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 10_000), (65_000, 65_000), (2_000_000_000, 1)])
def test_a_bomb_is_refused_before_a_pixel_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(MediaTooLargeError, match="1000000"):
        prepare(bomb(*size))
