"""Tells the container of a film by its first bytes, never by a name or a header that came along."""

from __future__ import annotations

#: First bytes of the file to the name of FFmpeg's demuxer. https://en.wikipedia.org/wiki/List_of_file_signatures
_MAGIC = ((b"\x1aE\xdf\xa3", "matroska"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))

#: Boxes that MP4 and older QuickTime files begin with, behind four bytes of length.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

#: The sync byte of MPEG-TS; where it stands first, and its period in bytes. Blu-ray's packets begin with their time.
_TS_SYNC, _TS_PERIODS = b"\x47", ((0, 188), (4, 192))


def demuxer(data: bytes) -> str | None:
    """The name of FFmpeg's demuxer for `data`, None where it is no container that is read here.

    It is always named: FFmpeg's own guess would also take playlists and scripts, which make it open files and URLs.
    """
    if data[4:8] in _BOXES:
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if any(data[first : first + 3 * step : step] == 3 * _TS_SYNC for first, step in _TS_PERIODS):
        return "mpegts"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)
