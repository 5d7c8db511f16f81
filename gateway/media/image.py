"""Checks images and makes those that the engine would misread into PNG. Pure, slow: for threads.

The reference is what transformers sees: the first frame, turned as EXIF says, `convert("RGB")`. vLLM 0.32
(multimodal/media/image.py) reads PNG, JPEG, WebP and GIF the same way but for transparency, which it paints on
white. For a real alpha channel (RGBA, LA) that is kept, since it is what a person sees; transformers would uncover
whatever colour lies beneath. A transparent palette entry or key colour is shown opaque, as transformers does, so
such an image is re-encoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from gateway.errors import MediaError, MediaTooLargeError

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
_READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")

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


def prepare(data: bytes, max_pixels: int) -> tuple[str, bytes]:
    """The media type and bytes to send: the very same `data` where the engine reads it well, else a PNG.

    Raises MediaError where it is no image or is broken, MediaTooLargeError over `max_pixels` (width times
    height), which is known before any pixel is decoded.
    """
    with _decoding(max_pixels):
        image = Image.open(BytesIO(data), formats=_READ)
        _check_size(image.size, max_pixels)
        media_type = _PASSED.get(image.format or "")
        if media_type and not _hides_transparency(image):
            _verify(image)
            return media_type, data
        return "image/png", _encode(image)


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
        raise MediaError("the data is no image of a known format (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)") from None
    except _FAULTS as fault:
        raise MediaError("the image is truncated or corrupt") from fault


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError("the image is empty")
    if width * height > max_pixels:
        raise MediaTooLargeError(_too_large(f"{width}x{height} = {width * height}", max_pixels))


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


def _encode(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    upright.info.clear()
    seen = upright.convert("RGBA" if "A" in upright.mode else "RGB")
    target = BytesIO()
    seen.save(target, "PNG", compress_level=1)
    return target.getvalue()
