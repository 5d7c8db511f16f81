"""Tells the format of a clip by its first bytes, never by a name or a header that came along."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import MediaError
from gateway.media import video_formats


@dataclass(frozen=True, slots=True)
class Format:
    """A container: whether libsndfile may read it, and the name of FFmpeg's demuxer.

    The demuxer is always named: FFmpeg's own guess would also take playlists, which make it open files and URLs.
    """

    demuxer: str
    sndfile: bool = False


WAV = Format("wav", sndfile=True)
_AIFF = Format("aiff", sndfile=True)
_MP3 = Format("mp3", sndfile=True)
_AAC = Format("aac")
_OPUS = Format("ogg")

#: First bytes of the file to its format. https://en.wikipedia.org/wiki/List_of_file_signatures
_MAGIC = (
    (b"fLaC", Format("flac", sndfile=True)),
    (b"OggS", Format("ogg", sndfile=True)),
    (b".snd", Format("au", sndfile=True)),
    (b"caff", Format("caf", sndfile=True)),
    (b"#!AMR", Format("amr")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("asf")),
)

#: Form and kind of the containers that are made of chunks.
_CHUNKED = {
    (b"RIFF", b"WAVE"): WAV,
    (b"RF64", b"WAVE"): WAV,
    (b"FORM", b"AIFF"): _AIFF,
    (b"FORM", b"AIFC"): _AIFF,
}

#: Containers of films that can hold sound; M4A, MOV and 3GP are the first, WebM is the second.
_FILMS = ("mov", "matroska", "avi", "mpegts")

#: Where Ogg's first page begins to tell its codec, at the latest.
_OGG_CODEC = 64


def sniff(data: bytes) -> Format:
    """The format of `data`.

    Raises MediaError where it is none of those that are decoded here.
    """
    if not data:
        raise MediaError("the clip is empty")
    found = _CHUNKED.get((data[:4], data[8:12])) or _by_magic(data) or _by_frame(data) or _of_film(data)
    if found is None:
        raise MediaError("the data is no audio of a known format (WAV, MP3, FLAC, OGG, M4A, AAC, WebM, AMR, AIFF, CAF)")
    return found


def without_tag(data: bytes) -> bytes:
    """`data` less the ID3v2 tag, a picture in it perhaps, that may stand before MP3, AAC and FLAC.

    https://id3.org/id3v2.4.0-structure: ten bytes, the last four of which give the length, seven bits each.
    """
    if not data.startswith(b"ID3") or len(data) < 10:
        return data
    length = sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return data[10 + length :]


def _by_magic(data: bytes) -> Format | None:
    if data.startswith(b"OggS") and b"OpusHead" in data[:_OGG_CODEC]:
        return _OPUS  # FFmpeg's decoder takes 0.4 of libsndfile's time
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _film(data: bytes) -> Format | None:
    found = video_formats.demuxer(data)
    return Format(found) if found in _FILMS else None


def _by_frame(data: bytes) -> Format | None:
    """MPEG audio without a container: eleven bits set, then the layer, which is 0 in AAC's ADTS frames."""
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return _AAC if data[1] & 0xF6 == 0xF0 else _MP3
    return None


def _of_film(data: bytes) -> Format | None:
    found = video_formats.demuxer(data)
    return Format(found) if found else None
