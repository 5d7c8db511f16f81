"""Makes small images that would take much memory or time, or lead a reader in a circle, if a decoder believed them."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping

from tests.media.samples import image_bytes

_MIB = 1 << 20

#: (tag, type, count, value or where the values stand)
_Tag = tuple[int, int, int, int]


def images() -> Mapping[str, bytes]:
    """Refused, each of them."""
    return {**_pngs(), **_tiffs(), **_others()}


def harmless() -> Mapping[str, bytes]:
    """Read, in time: most of each is never looked at, or is what a large picture takes."""
    jpeg, dot = image_bytes("JPEG"), zlib.compress(b"\0\xff\0\0")
    return {
        "PNG of 2,000 frames": _apng(2_000),
        "PNG with 500,000 bytes behind": png(1, 1, dot) + bytes(500_000),
        "PNG of nine million pixels": png(3_000, 3_000, zlib.compress(bytes(3_001 * 3_000)), colour=0),
        "GIF of 20,000 frames": gif(16, 16, (0, 0, 1, 1), *[(1, 1, 1, 1)] * 20_000),
        "TIFF of 5,000 pages": _pages(5_000),
        "JPEG with 500,000 bytes of comments": jpeg[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 8 + jpeg[2:],
        "JPEG with 50,000 comments": jpeg[:2] + b"\xff\xfe\0\2" * 50_000 + jpeg[2:],
    }


def png(width: int, height: int, pixels: bytes, *before: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Of compressed `pixels`, with chunks `before` them; all checksums are right."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), *before, _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(width: int, height: int, *frames: tuple[int, int, int, int]) -> bytes:
    """A canvas and frames (left, top, width, height) on it, each of one pixel's data."""
    parts = [b"GIF89a", struct.pack("<HHBBB", width, height, 0x80, 0, 0), bytes(6)]
    for frame in frames:
        parts += [b"\x2c", struct.pack("<HHHHB", *frame, 0), b"\x02\x02\x44\x01\0"]
    return b"".join(parts) + b"\x3b"


def box(name: bytes, *body: bytes) -> bytes:
    """Of ISO's media files."""
    content = b"".join(body)
    return struct.pack(">I", 8 + len(content)) + name + content


def nested(brand: bytes, depth: int) -> bytes:
    """Boxes in boxes, each of which holds all that follow."""
    inner = b"".join(struct.pack(">I", 8 * (depth - level)) + b"moov" for level in range(depth))
    return box(b"ftyp", brand, bytes(4), b"mif1") + box(b"meta", bytes(4), inner)


def _pngs() -> Mapping[str, bytes]:
    nothing, zeros = zlib.compress(b""), zlib.compress(bytes(64 * _MIB), 1)
    return {
        "PNG of 2^31 by 2^31": png(2**31 - 1, 2**31 - 1, nothing),
        "PNG of 1 by 2^31": png(1, 2**31 - 1, nothing),
        "PNG of 100,000 by 100,000": png(100_000, 100_000, zeros),
        "PNG of 20,000 by 20,000 bits": png(20_000, 20_000, zeros, depth=1, colour=0),
        "PNG of 6,000 by 6,000 without pixels": png(6_000, 6_000, nothing),
        "PNG of 6,000 by 6,000 that ends soon": png(6_000, 6_000, zlib.compress(bytes(_MIB)), depth=16, colour=6),
        "PNG with a bomb for a colour profile": png(1, 1, nothing, _chunk(b"iCCP", b"a\0\0" + zeros)),
        "PNG with a bomb for a text": png(1, 1, nothing, _chunk(b"zTXt", b"a\0\0" + zeros)),
        "PNG with a bomb for an international text": png(1, 1, nothing, _chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)),
        "PNG with 20,000 texts": png(1, 1, nothing, _chunk(b"tEXt", b"a\0b") * 20_000),
        "PNG in gzip": gzip.compress(image_bytes("PNG"), mtime=0),
    }


def _tiffs() -> Mapping[str, bytes]:
    small = _grey(64, 64)
    return {
        "TIFF of 2^32 by 2^32": _tiff(*_grey(2**32 - 1, 2**32 - 1), (273, 4, 1, 8), (279, 4, 1, 1)),
        "TIFF of 2^32 strips": _tiff(*small, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)),
        "TIFF of strips of 2^32 bytes": _tiff(*small, (273, 4, 1, 8), (278, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1)),
        "TIFF of 2^32 tiles": _tiled_tiff(_grey(6_000, 6_000), side=1, count=2**32 - 1),
        "TIFF of 36 million tiles": _tiled_tiff(_grey(6_000, 6_000), side=1, count=1),
        "TIFF of tiles of no size": _tiled_tiff(small, side=0, count=1),
        "TIFF of tiles of 2^31 by 2^31": _tiled_tiff(small, side=2**31, count=1),
        "TIFF that is its own next page": _tiff((254, 4, 1, 0), following=8),
        "TIFF of 20,000 tags": b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 305, 2, 2**31, 8) * 20_000,
        "TIFF of 49 million compressed zeros": _deflated_tiff(7_000),
    }


def _others() -> Mapping[str, bytes]:
    jpeg, avif, bare = image_bytes("JPEG"), image_bytes("AVIF"), image_bytes("JPEG2000", no_jp2=True)
    frame, extent, sizes = jpeg.index(b"\xff\xc0") + 5, avif.index(b"ispe") + 8, bare.index(b"\xff\x51") + 6
    tiles = struct.pack(">IIIIIIII", 6_000, 6_000, 0, 0, 1, 1, 0, 0)
    return {
        "JPEG of 65,535 by 65,535": _over(jpeg, frame, b"\xff" * 4),
        "GIF of a tiny canvas and a huge frame": gif(1, 1, (0, 0, 65_535, 65_535)),
        "GIF of a huge canvas": gif(65_535, 65_535, (0, 0, 1, 1)),
        "WebP of 16,384 by 16,384": _webp(16_384, 16_384),
        "BMP of 30,000 by 30,000 run lengths": _bmp(30_000, 30_000, bits=8, compression=1),
        "BMP of 2^31 by 1": _bmp(2**31 - 1, 1),
        "AVIF of 65,535 by 65,535": _over(avif, extent, struct.pack(">II", 65_535, 65_535)),
        "AVIF of boxes in boxes": nested(b"avif", 50_000),
        "HEIC of boxes in boxes": nested(b"heic", 50_000),
        "JPEG 2000 of 2^31 by 2^31": _over(bare, sizes, struct.pack(">II", 2**31, 2**31)),
        "JPEG 2000 of 36 million tiles": _over(bare, sizes, tiles),
        "PPM of 10^18 pixels": b"P6 1000000000 1000000000 255\n" + bytes(64),
        "PPM of 5,000 by 5,000 without pixels": b"P6 5000 5000 255\n",
        "PPM whose width has 100,000 digits": b"P6 " + b"9" * 100_000 + b" 1 255\n",
        "PPM that is a comment": b"P6 #" + b"x" * 100_000,
        "PPM written as text": b"P3 6000 6000 255\n" + b"1 " * 1_000,
        "TGA of 65,535 by 65,535": struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65_535, 65_535, 24, 0),
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _over(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _tiff(*tags: _Tag, following: int = 0, start: int = 8) -> bytes:
    """Of Intel's byte order, with one directory."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", start, len(tags)) + entries + struct.pack("<I", following)


def _grey(width: int, height: int, compression: int = 1) -> tuple[_Tag, ...]:
    one = {258: 8, 259: compression, 262: 1, 277: 1}
    return ((256, 4, 1, width), (257, 4, 1, height), *((number, 3, 1, value) for number, value in one.items()))


def _tiled_tiff(tags: tuple[_Tag, ...], side: int, count: int) -> bytes:
    return _tiff(*tags, (322, 4, 1, side), (323, 4, 1, side), (324, 4, count, 8), (325, 4, count, 8))


def _deflated_tiff(side: int) -> bytes:
    packed = zlib.compress(bytes(side * side), 1)
    tags = (*_grey(side, side, compression=8), (273, 4, 1, 200), (278, 4, 1, side), (279, 4, 1, len(packed)))
    return _tiff(*tags).ljust(200, b"\0") + packed


def _pages(count: int) -> bytes:
    """Every page is the same four pixels."""
    length = len(page := _tiff(*_grey(2, 2), (273, 4, 1, 2), (278, 4, 1, 2), (279, 4, 1, 4))[8:])
    following = (8 + length * (number + 1) for number in range(count - 1))
    return b"II*\0\x08\0\0\0" + b"".join(page[:-4] + struct.pack("<I", place) for place in following) + page


def _webp(width: int, height: int) -> bytes:
    lossless = struct.pack("<BI", 0x2F, (width - 1) | (height - 1) << 14) + bytes(17)
    body = b"WEBPVP8L" + struct.pack("<I", len(lossless)) + lossless
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(width: int, height: int, *, bits: int = 24, compression: int = 0) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1_000, 0, 0, 54 + 1024) + header + bytes(2_000)


def _apng(frames: int) -> bytes:
    dot = zlib.compress(b"\0\xff\0\0")
    parts = [_chunk(b"acTL", struct.pack(">II", frames, 0))]
    for number in range(frames):
        parts.append(_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number, 1, 1, 0, 0, 1, 10, 0, 0)))
        parts.append(_chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + dot))
    return png(1, 1, dot, *parts)
