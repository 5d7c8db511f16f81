"""Images reach the engine as transformers would see them, untouched where the engine sees the same."""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import heif, image
from gateway.media.budget import image_tokens
from gateway.settings import Family
from tests.media.samples import image_bytes, picture

LIMIT = 1_000_000


def prepare(data: bytes, limit: int = LIMIT) -> tuple[str, bytes]:
    """Media type and bytes that reach the engine, where nothing is shrunk."""
    (piece,) = image.prepare(data, limit, Family.GEMMA4, None, shrink=False).pieces
    return piece.media_type, data if piece.base64 is None else base64.b64decode(piece.base64)


def shrunk(data: bytes, family: Family = Family.GEMMA4, max_soft_tokens: int | None = None) -> bytes:
    """The bytes that reach the engine, where images are shrunk."""
    (piece,) = image.prepare(data, 10**8, family, max_soft_tokens, shrink=True).pieces
    return data if piece.base64 is None else base64.b64decode(piece.base64)


def seen(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What transformers makes of an encoded image."""
    opened = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    opened.info.pop("transparency", None)
    return np.asarray(opened.convert("RGB"))


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_an_error(kind: str, kept: float) -> None:
    data = image_bytes(kind, picture(size=(200, 200)))
    with pytest.raises(MediaError):
        prepare(data[: int(len(data) * kept)])


def test_a_tiff_whose_directory_misses_strips_is_an_error() -> None:
    data = bytearray(image_bytes("TIFF", picture(size=(200, 200))))
    height = data.index(struct.pack("<HHII", 257, 4, 1, 200))
    data[height + 8 : height + 12] = struct.pack("<I", 1_000)

    with pytest.raises(MediaError, match="truncated"):
        prepare(bytes(data))


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
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "AVIF", "HEIF"):
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


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Sixty bytes more make the engine pass once more over all pixels."""
    data = image_bytes("JPEG", picture(), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert prepare(data[:-2] + last * 20 + data[-2:])[0] == "image/jpeg"
    with pytest.raises(MediaError, match="64 scans"):
        prepare(data[:-2] + last * 100 + data[-2:])


#: More than four times the pixels of 432 x 336, which is what Gemma 4 sees of it at 70 tokens.
LARGE = (960, 720)


@pytest.mark.parametrize(
    ("family", "budget", "large", "size", "filtering"),
    [
        (Family.GEMMA4, 70, LARGE, (432, 336), Image.Resampling.BICUBIC),
        (Family.GEMMA4, None, (1920, 1440), (912, 672), Image.Resampling.BICUBIC),
        (Family.GEMMA3, None, (2000, 1800), (896, 896), Image.Resampling.BILINEAR),
        (Family.GEMMA3N, None, (1200, 2400), (768, 768), Image.Resampling.BILINEAR),
    ],
)
def test_a_large_image_becomes_what_the_models_processor_would_make_of_it(
    family: Family, budget: int | None, large: tuple[int, int], size: tuple[int, int], filtering: Image.Resampling
) -> None:
    original = picture(size=large)
    small = shrunk(image_bytes("PNG", original, compress_level=0), family, budget)
    assert np.array_equal(seen(small), np.asarray(original.resize(size, filtering)))


def test_shrinking_a_photograph_saves_bytes() -> None:
    grain = np.random.default_rng(0).normal(0, 12, (720, 960, 3))
    photograph = Image.fromarray(np.clip(np.asarray(picture(size=LARGE)) + grain, 0, 255).astype(np.uint8))
    data = image_bytes("JPEG", photograph, quality=90)
    assert len(shrunk(data, max_soft_tokens=70)) < len(data)


@pytest.mark.parametrize("budget", [70, 280])
def test_shrinking_changes_no_count_of_tokens(budget: int) -> None:
    data = image_bytes("BMP", picture(size=(2000, 1500)))
    shrunk_or_not = (
        image.prepare(data, 10**8, Family.GEMMA4, budget, shrink=shrink).pieces[0].tokens for shrink in (True, False)
    )
    size = Image.open(BytesIO(shrunk(data, max_soft_tokens=budget))).size
    assert set(shrunk_or_not) == {image_tokens(*size, Family.GEMMA4, budget)}


def test_a_large_image_is_shrunk_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = image_bytes("PNG", picture(size=LARGE), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    expected = upright.resize((336, 432), Image.Resampling.BICUBIC)
    assert np.array_equal(seen(shrunk(data, max_soft_tokens=70)), np.asarray(expected))


def test_a_large_image_with_an_alpha_channel_is_painted_on_white_before_it_is_shrunk() -> None:
    large = picture("RGBA", LARGE)
    large.putalpha(large.getchannel("R"))
    white = Image.new("RGB", large.size, "white")
    white.paste(large, mask=large.getchannel("A"))
    expected = white.resize((432, 336), Image.Resampling.BICUBIC)
    assert np.array_equal(seen(shrunk(image_bytes("PNG", large), max_soft_tokens=70)), np.asarray(expected))


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((400, 300), id="not larger"),
        pytest.param((800, 600), id="hardly larger"),
        pytest.param((1600, 800), id="proportions that the processor changes again"),
    ],
)
def test_what_would_gain_nothing_is_not_shrunk(size: tuple[int, int]) -> None:
    data = image_bytes("PNG", picture(size=size))
    assert shrunk(data, max_soft_tokens=70) is data


def test_what_is_written_anew_in_any_case_is_shrunk_even_where_it_is_hardly_larger() -> None:
    data = image_bytes("BMP", picture(size=(500, 375)))
    assert Image.open(BytesIO(shrunk(data, max_soft_tokens=70))).size == (432, 336)


def test_what_webp_cannot_hold_becomes_a_png() -> None:
    data = image_bytes("BMP", picture(size=(17_000, 3)))
    media_type, encoded = prepare(data)
    assert media_type == "image/png"
    assert np.array_equal(seen(encoded), seen(data))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_does_not_keep_a_large_image_from_being_shrunk(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = image_bytes(kind, picture(size=LARGE), exif=exif.tobytes()[:12] + b"\xff" * 20)
    assert Image.open(BytesIO(shrunk(data, max_soft_tokens=70))).size == (432, 336)


def test_a_truncated_image_that_would_be_shrunk_is_an_error() -> None:
    data = image_bytes("JPEG", picture(size=LARGE))
    with pytest.raises(MediaError, match="truncated"):
        shrunk(data[: len(data) // 2], max_soft_tokens=70)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (39, 23)), (6, (23, 0)), (8, (0, 39))])
def test_a_turned_heic_is_upright(orientation: int, corner: tuple[int, int]) -> None:
    """The one dark corner is where the camera's upper left one went."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn = Image.new("RGB", (40, 24), "white")
    drawn.paste("black", (0, 0, 12, 12))
    upright = Image.open(BytesIO(prepare(image_bytes("HEIF", drawn, exif=exif.tobytes()))[1]))
    assert upright.size == ((40, 24) if orientation < 5 else (24, 40))
    assert np.asarray(upright.convert("L")).T[corner] < 50


def test_a_heic_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(MediaTooLargeError, match="1500x1000"):
        prepare(image_bytes("HEIF", Image.new("RGB", (1500, 1000))))


def test_without_its_plugin_heic_is_no_known_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert heif.register() == ()
    monkeypatch.undo()
    assert heif.register() == ("HEIF",)
