"""Checks images, and writes anew what the engine would misread or what is larger than the model sees. Pure, slow.

The reference is what transformers sees: the first frame, turned as EXIF says, `convert("RGB")`. vLLM 0.32
(multimodal/media/image.py) reads PNG, JPEG, WebP and GIF the same way but for transparency, which it paints on
white. For a real alpha channel (RGBA, LA) that is kept, since it is what a person sees; transformers would uncover
whatever colour lies beneath. A transparent palette entry or key colour is shown opaque, as transformers does, so
such an image is written anew.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

import pybase64
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import budget, heif
from gateway.media.prepared import Piece, Prepared
from gateway.settings import Family, Modality

#: What vLLM reads as transformers does, and its media type. MPO is the JPEG of phones, with more pictures behind.
_PASSED = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}

#: Decoded in process, with a header that binds the pixels. Not: EPS (starts Ghostscript), ICO and ICNS (the
#: pictures inside may be larger than the header says), stubs.
_READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", *heif.register())

_KNOWN = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF" + (", HEIC" if "HEIF" in _READ else "; HEIC needs the heif extra")

#: What Pillow's decoders raise on broken bytes.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

#: How the models' processors resize (`resample` in transformers' image_processing_gemma4.py and in the
#: preprocessor_config.json of Gemma 3 and 3n).
_RESAMPLING = {
    Family.GEMMA4: Image.Resampling.BICUBIC,
    Family.GEMMA3: Image.Resampling.BILINEAR,
    Family.GEMMA3N: Image.Resampling.BILINEAR,
}

#: How many times the pixels that the model sees an image must have to be shrunk. Measured: a photograph takes 0.45
#: bytes a pixel as JPEG and 1.6 once it is lossless, so that from 3.6 times on it gets smaller by being shrunk.
_SHRUNK_FROM = 4

#: The most in one JPEG; a progressive one has about ten. Each is a pass over all pixels (30 ms for 40 million), which
#: the engine would make as well, and takes no more than 60 bytes of the file.
_MOST_SCANS = 64
_SCAN = b"\xff\xda"

#: Pixels of a side, the most that WebP can hold.
_WEBP_SIDE = 16_383


def prepare(
    data: bytes,
    max_pixels: int,
    family: Family,
    max_soft_tokens: int | None,
    shrink: bool,
    pan_and_scan: bool = False,
) -> Prepared:
    """The one image to send, without `base64` where the engine gets the very same `data`.

    With `shrink`, an image much larger than the model sees becomes what its processor would make of it. Raises
    MediaError where it is no image or is broken, MediaTooLargeError over `max_pixels` (width times height), which is
    known before any pixel is decoded.
    """
    with _decoding(max_pixels):
        image = Image.open(BytesIO(data), formats=_READ)
        _check_size(image.size, max_pixels)
        _check_scans(image, data)
        media_type = None if _hides_transparency(image) else _PASSED.get(image.format or "")
        base64 = None
        if media_type and not (shrink and worth_shrinking(*image.size, family, max_soft_tokens)):
            _verify(image)
        else:
            seen = _seen(image, max_pixels)
            target = _target(*seen.size, family, max_soft_tokens) if shrink else None
            media_type, encoded = _encode(_resized(seen, target, family) if target else seen)
            base64 = pybase64.b64encode(encoded)
        tokens = budget.image_tokens(*image.size, family, max_soft_tokens, pan_and_scan=pan_and_scan)
        return Prepared((Piece(Modality.IMAGE, media_type, base64, tokens),))


def worth_shrinking(width: int, height: int, family: Family, max_soft_tokens: int | None) -> bool:
    """Whether an image of this size, in pixels, is shrunk although the engine could read it as it came."""
    target = _target(width, height, family, max_soft_tokens)
    return target is not None and width * height >= _SHRUNK_FROM * target[0] * target[1]


def _target(width: int, height: int, family: Family, max_soft_tokens: int | None) -> tuple[int, int] | None:
    """The size that the processor would choose, where that is smaller, and is left alone when it is met again.

    At some proportions it is not: rounding one side down leaves room that the other then takes.
    """
    target = budget.image_size(width, height, family, max_soft_tokens)
    settled = budget.image_size(*target, family, max_soft_tokens) == target
    return target if settled and target[0] * target[1] < width * height else None


@contextmanager
def _decoding(max_pixels: int) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except _BOMBS:
        raise MediaTooLargeError(_too_large("more", max_pixels)) from None
    except MemoryError:
        raise MediaTooLargeError("the image is too large to decode") from None
    except UnidentifiedImageError:
        raise MediaError(f"the data is no image of a known format ({_KNOWN})") from None
    except _FAULTS as fault:
        raise MediaError("the image is truncated or corrupt") from fault


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError("the image is empty")
    if width * height > max_pixels:
        raise MediaTooLargeError(_too_large(f"{width}x{height} = {width * height}", max_pixels))


def _check_scans(image: Image.Image, data: bytes) -> None:
    if image.format in ("JPEG", "MPO") and data.count(_SCAN) > _MOST_SCANS:
        raise MediaError(f"the image has more than {_MOST_SCANS} scans, which no camera or program writes")


def _check_strips(image: ImageFile.ImageFile) -> None:
    """A TIFF may name fewer strips or tiles than its size takes: Pillow would leave the rest black."""
    if image.format != "TIFF":
        return
    boxes = [tile.extents for tile in image.tile if tile.extents]
    named = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if named < image.width * image.height:
        raise MediaError("the image is truncated or corrupt")


def _too_large(actual: str, limit: int) -> str:
    return f"the image has {actual} pixels; the limit is {limit} (media.max_image_pixels)"


def _hides_transparency(image: Image.Image) -> bool:
    """Whether vLLM would paint a transparent colour white that transformers shows."""
    return "transparency" in image.info and image.mode not in ("RGB", "RGBA", "LA")


def _verify(image: Image.Image) -> None:
    """Reads to the end, to find what is missing; a JPEG at an eighth of its size, which costs a third."""
    if image.format == "JPEG":
        image.draft(image.mode, (1, 1))
    image.load()


def _seen(image: ImageFile.ImageFile, max_pixels: int) -> Image.Image:
    """As RGB, or RGBA where it has an alpha channel, upright."""
    _check_strips(image)
    image.load()
    _check_size(image.size, max_pixels)
    with suppress(*_FAULTS):
        ImageOps.exif_transpose(image, in_place=True)
    image.info.clear()
    return image.convert("RGBA" if "A" in image.mode else "RGB")


def _resized(seen: Image.Image, size: tuple[int, int], family: Family) -> Image.Image:
    """On white, as vLLM paints it, then as the model's processor resizes."""
    picture = seen
    if seen.mode == "RGBA":
        picture = Image.new("RGB", seen.size, "white")
        picture.paste(seen, mask=seen.getchannel("A"))
    return picture.resize(size, _RESAMPLING[family])


def _encode(picture: Image.Image) -> tuple[str, bytes]:
    """Media type and bytes, without loss.

    Lossless WebP at its least effort took 60 % of the time and 77 % of the bytes of PNG at level 1, for a photograph.
    """
    target = BytesIO()
    if max(picture.size) > _WEBP_SIDE:
        picture.save(target, "PNG", compress_level=1)
        return "image/png", target.getvalue()
    picture.save(target, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return "image/webp", target.getvalue()
