"""Tells from the ends of an image whether the engine may get it as it came. Pure, takes microseconds.

It has to be sure: the type is one that vLLM reads as transformers does, the size is what every decoder will find, the
file is whole as far as its end can tell, and decoding it cannot take longer than its size explains (a JPEG with many
scans can). Where it is not sure, `image.prepare` decides. What it cannot see is damage inside: the engine does, and
refuses.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pybase64

from gateway.protocol import Buffer

#: Segments or chunks that are hopped over; a photograph has about ten, large ones have their profile in some more.
_MOST_HOPS = 64

#: Bytes read at a time: all tables of a usual JPEG, so that they cost one read.
_WINDOW = 768

_PNG = struct.Struct(">8sI4sIIBBBBBI")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
#: Bits by colour type: grey, RGB, palette, grey and alpha, RGB and alpha (https://www.w3.org/TR/png-3/#11IHDR).
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_RGB = 2

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_BASELINE, _SCAN, _APP2 = 0xC0, 0xDA, 0xE2
#: Tables, restart interval, applications' segments and comments.
_HOPPED = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})

_WEBP = struct.Struct("<4sI4s4sI")
_VP8_KEY = b"\x9d\x01\x2a"
_VP8L_KEY = 0x2F
_ANIMATED = 0x02
_14_BITS = 0x3FFF


@dataclass(frozen=True, slots=True)
class Header:
    """Media type, and width and height in pixels before any turning that EXIF asks for."""

    media_type: str
    width: int
    height: int


class Source(Protocol):
    """A file in memory that is read here and there. `size` is in bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there, fewer at the end. Raises ValueError where they cannot be had."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The bytes themselves."""

    data: Buffer

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there."""
        return bytes(self.data[offset : offset + length])


@dataclass(frozen=True, slots=True)
class Base64:
    """Standard base64 with its padding, of which only what is read is decoded."""

    text: Buffer

    @property
    def size(self) -> int:
        """Of what it decodes to, in bytes; 0 where it is no whole base64."""
        whole, rest = divmod(len(self.text), 4)
        return 0 if rest else whole * 3 - bytes(self.text[-2:]).count(b"=")

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there. Raises ValueError where the text around is not base64."""
        first, last = offset // 3, -(-(offset + length) // 3)
        around = pybase64.b64decode(self.text[first * 4 : last * 4], validate=True)
        return around[offset - first * 3 :][:length]


class _Reader:
    """Reads a window at a time, so that neighbours cost nothing."""

    def __init__(self, source: Source) -> None:
        self.size = source.size
        self._source = source
        self._start = 0
        self._window = source.read(0, _WINDOW)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises ValueError where the file ends before."""
        begin = offset - self._start
        if not 0 <= begin <= len(self._window) - length:
            self._start, begin = offset, 0
            self._window = self._source.read(offset, max(length, min(_WINDOW, self.size - offset)))
        found = self._window[begin : begin + length]
        if len(found) < length:
            raise ValueError("the file ends here")
        return found

    def ends_with(self, tail: bytes) -> bool:
        """Whether these are the last bytes; the window stays where it is."""
        return self._source.read(max(0, self.size - len(tail)), len(tail)) == tail


def look(source: Source) -> Header | None:
    """What the image is, or None where a closer look is needed."""
    try:
        reader = _Reader(source)
        start = reader.read(0, 4)
        kind = next((read for magic, read in _KINDS if start.startswith(magic)), None)
        return kind(reader) if kind else None
    except ValueError:
        return None


def _png(reader: _Reader) -> Header | None:
    head = reader.read(0, _PNG.size)
    start, length, name, width, height, depth, colour, compression, filtering, interlace, checksum = _PNG.unpack(head)
    usual = (start, length, name, compression, filtering) == (_PNG_START, 13, b"IHDR", 0, 0) and interlace < 2
    if not usual or depth not in _PNG_DEPTHS.get(colour, ()) or checksum != zlib.crc32(head[12:29]):
        return None
    if not width or not height or not reader.ends_with(_PNG_END):
        return None
    return Header("image/png", width, height) if _is_plain_png(reader, colour) else None


def _is_plain_png(reader: _Reader, colour: int) -> bool:
    """Whether nothing before the pixels makes it an animation, hides a colour, or speaks of another size."""
    at = _PNG.size
    for _ in range(_MOST_HOPS):
        length, name = struct.unpack(">I4s", reader.read(at, 8))
        if name == b"IDAT":
            return True
        if name == b"acTL" or (name == b"tRNS" and colour != _PNG_RGB) or (name[:1].isupper() and name != b"PLTE"):
            return False
        at += 12 + length
    return False


def _jpeg(reader: _Reader) -> Header | None:
    """Baseline in one scan: then decoding is one pass over the pixels, whatever else the file holds."""
    if not reader.ends_with(_JPEG_END):
        return None
    at, frame = 2, b""
    for _ in range(_MOST_HOPS):
        mark, marker, length = struct.unpack(">BBH", reader.read(at, 4))
        if mark != 0xFF or length < 2:
            return None
        if marker == _SCAN:
            return _jpeg_frame(frame) if reader.read(at + 4, 1) == frame[5:6] else None
        if marker == _BASELINE and not frame:
            frame = reader.read(at + 4, length - 2)
        elif marker not in _HOPPED or (marker == _APP2 and reader.read(at + 4, 3) == b"MPF"):
            return None
        at += 2 + length
    return None


def _jpeg_frame(frame: bytes) -> Header | None:
    if len(frame) < 6:
        return None
    bits, height, width, components = struct.unpack(">BHHB", frame[:6])
    usual = bits == 8 and components in (1, 3, 4) and len(frame) == 6 + 3 * components
    return Header("image/jpeg", width, height) if usual and width and height else None


def _webp(reader: _Reader) -> Header | None:
    riff, size, webp, kind, length = _WEBP.unpack(reader.read(0, _WEBP.size))
    if (riff, webp) != (b"RIFF", b"WEBP") or size + 8 != reader.size or length + _WEBP.size > reader.size:
        return None
    found = _WEBP_SIZES[kind](reader.read(_WEBP.size, 10)) if kind in _WEBP_SIZES else None
    return Header("image/webp", *found) if found and all(found) else None


def _vp8(body: bytes) -> tuple[int, int] | None:
    """Lossy (RFC 6386, section 9.1): the first frame must be a key frame."""
    if body[0] & 1 or body[3:6] != _VP8_KEY:
        return None
    width, height = struct.unpack("<HH", body[6:10])
    return width & _14_BITS, height & _14_BITS


def _vp8l(body: bytes) -> tuple[int, int] | None:
    """Lossless (RFC 9649, section 3.4): two sizes of 14 bits, one bit, three bits of version."""
    bits = int.from_bytes(body[1:5], "little")
    return ((bits & _14_BITS) + 1, (bits >> 14 & _14_BITS) + 1) if body[0] == _VP8L_KEY and not bits >> 29 else None


def _vp8x(body: bytes) -> tuple[int, int] | None:
    """Extended (RFC 9649, section 2.7): the canvas, which the picture must fill exactly."""
    width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    return None if body[0] & _ANIMATED else (width, height)


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {b"VP8 ": _vp8, b"VP8L": _vp8l, b"VP8X": _vp8x}

_KINDS = ((_JPEG_START, _jpeg), (_PNG_START[:4], _png), (b"RIFF", _webp))
