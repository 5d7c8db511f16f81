"""Reads the outermost lengths of a container, by which it tells whether its file was cut off. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from struct import Struct

#: Bytes. From here on a 32-bit length is no length: what writes to a pipe puts 0xFFFFFFFF, 0x7FFFFFFF or near it.
_OPEN_END = 0x7FFF0000


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How a file of chunks is laid out: where the first begins, their head, the one with the sound, their alignment."""

    first: int
    head: Struct
    sound: bytes
    align: int = 2


_LAYOUTS = {
    b"RIFF": _Chunks(12, Struct("<4sI"), b"data"),
    b"RF64": _Chunks(12, Struct("<4sI"), b"data"),
    b"FORM": _Chunks(12, Struct(">4sI"), b"SSND"),
    b"caff": _Chunks(8, Struct(">4sq"), b"data", align=1),
}

#: https://tech.ebu.ch/docs/tech/tech3306v1_0.pdf: the chunk ds64 comes first; in it, the length of the data.
_RF64_LENGTH = 28

#: Boxes of an MP4 file without which there is no sound. What is behind them may be junk.
_BOXES = (b"moov", b"moof", b"mdat")

#: Boxes of an MP4 file that hold those that count samples, and where in these the count stands, in bytes.
_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_COUNTS = {b"stsz": 16, b"trun": 12}

#: A sample takes a byte or more; in QuickTime's oldest sound files some share one.
_SAMPLES_PER_BYTE = 8

_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"

#: Bytes of an Ogg page up to its table of segments, the last of them its length (RFC 3533, section 6).
_OGG_HEAD = 27


def is_cut_off(data: bytes) -> bool:
    """Whether the container says that it goes on behind the end of `data`.

    False where it says nothing (MP3, AAC and AMR without a container; FLAC, whose decoder knows), where it leaves its
    length open, as a stream does, and where it is too broken to say anything.
    """
    if data[:4] in _LAYOUTS:
        place, length = _form(data) if data[8:12] == b"AVI " else _sound_chunk(data)
        return 0 <= length < _OPEN_END and place + length > len(data)
    if data[4:8] == b"ftyp":
        return _box_is_cut_off(data) or _box_counts_too_much(data)
    if data.startswith(b"OggS"):
        return _page_is_cut_off(data)
    if data.startswith(b"\x1aE\xdf\xa3"):
        return _segment_is_cut_off(data)
    return _au_is_cut_off(data) if data.startswith(b".snd") else False


def with_open_end(data: bytes) -> bytes:
    """A WAV whose data are said to be of length 0 although there are some, as of a recorder that never came to fill
    it in, with the length that means: up to the end. Anything else as it is.
    """
    if data[:4] != b"RIFF":
        return data
    place, length = _sound_chunk(data)
    form_end = 8 + int.from_bytes(data[4:8], "little")
    if length or place == len(data) or place < form_end < _OPEN_END:
        return data
    return data[: place - 4] + b"\xff\xff\xff\xff" + data[place:]


def _form(data: bytes) -> tuple[int, int]:
    """Where the outermost chunk begins and its length: a film's sound and pictures are all over it."""
    return 8, int.from_bytes(data[4:8], "little")


def _sound_chunk(data: bytes) -> tuple[int, int]:
    """Where the samples begin, and how many bytes of them there should be; the end of the file and 0 if nowhere."""
    layout = _LAYOUTS[data[:4]]
    place = layout.first
    while place + layout.head.size <= len(data):
        name, length = layout.head.unpack_from(data, place)
        place += layout.head.size
        if name == layout.sound:
            return place, _rf64_length(data) if data[:4] == b"RF64" else length
        if length < 0:
            break
        place += length + length % layout.align
    return len(data), 0


def _rf64_length(data: bytes) -> int:
    return int.from_bytes(data[_RF64_LENGTH : _RF64_LENGTH + 8], "little")


def _box_is_cut_off(data: bytes) -> bool:
    return any(end > len(data) and name in _BOXES for name, _, end in _boxes(data))


def _box_counts_too_much(data: bytes) -> bool:
    """Whether the samples it tells of cannot be in it. For each, FFmpeg keeps a line in memory before it reads any."""
    counts = (int.from_bytes(data[at : at + 4], "big") for at in _sample_counts(data))
    return any(count > _SAMPLES_PER_BYTE * len(data) for count in counts)


def _sample_counts(data: bytes) -> Iterator[int]:
    return (start + _COUNTS[name] for name, start, _ in _boxes(data, opened=_NESTED) if name in _COUNTS)


def _boxes(data: bytes, opened: Collection[bytes] = ()) -> Iterator[tuple[bytes, int, int]]:
    """The name, start and end of every box, those within `opened` ones too, until one has no length.

    ISO/IEC 14496-12, section 4.2: a length, a name; length 1 means 64 bits of it behind the name, 0 to the end.
    """
    place = 0
    while place + 16 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length < 8:
            return
        yield name, place, place + length
        place += 8 if name in opened else length


def _page_is_cut_off(data: bytes) -> bool:
    start = data.rfind(b"OggS")
    table = start + _OGG_HEAD
    if table > len(data):
        return True
    segments = data[table : table + data[table - 1]]
    return table + data[table - 1] + sum(segments) > len(data)


def _segment_is_cut_off(data: bytes) -> bool:
    """RFC 8794, section 4: an element is an id, a length whose leading zeros tell its width, a body."""
    place, length = _ebml_length(data, 4)
    place += length
    if data[place : place + 4] != _MATROSKA_SEGMENT:
        return False
    place, length = _ebml_length(data, place + 4)
    return place + length > len(data)


def _ebml_length(data: bytes, place: int) -> tuple[int, int]:
    """Where the body begins, and its length; 0 where that is open (all bits set) or missing."""
    if place >= len(data) or not data[place]:
        return place, 0
    width = 9 - data[place].bit_length()
    most = (1 << 7 * width) - 1
    length = int.from_bytes(data[place : place + width], "big") & most
    return place + width, 0 if length == most else length


def _au_is_cut_off(data: bytes) -> bool:
    if len(data) < 12:
        return True
    start, length = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    return length < _OPEN_END and start + length > len(data)
