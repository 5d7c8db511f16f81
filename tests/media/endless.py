"""Makes small clips and films that would last for ever, or take much memory, if a decoder believed them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from tests.media import bombs, clips, films
from tests.media.bombs import box, nested
from tests.media.samples import clip, tone

#: Bytes of nothing: small beside what these files say of themselves.
_SOME = 1 << 18
_MATROSKA = b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def audio() -> Mapping[str, bytes]:
    """Refused, each of them."""
    m4a = clips.by_ffmpeg("ipod", "aac")(tone(0.4, 16_000), 16_000)
    return {
        **_wavs(),
        "FLAC of five hours of silence": _flac(np.zeros(18_000 * 1_000, np.int16)),
        "FLAC of 31 minutes": _flac(np.tile(np.array([0, 8_000], np.int16), 31 * 60 * 500)),
        "FLAC of 100,000 headers": b"fLaC\0\0\0\x22" + bytes(34) + b"\1\0\0\0" * 100_000,
        "MP3 of headers only": b"\xff\xfb\x90\x64" * 50_000,
        "MP3 behind a tag of 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(_SOME),
        "MP3 behind 30,000 tags": b"ID3\x04\0\0\0\0\0\0" * 30_000,
        "OGG of pages that are cut off": b"OggS\0\0" + bytes(21) + b"OggS\0\0" * 100_000,
        "OGG of 10,000 streams": b"".join(_ogg_page(number) for number in range(10_000)),
        "M4A of boxes in boxes": nested(b"M4A ", 50_000),
        "M4A of a million samples of a byte": _many_samples(m4a, 1_000_000),
        "WebM of 2^56 bytes": b"\x1aE\xdf\xa3\x01" + b"\xff" * 6 + b"\xfe",
        "WebM of clusters in clusters": _MATROSKA + b"\x1f\x43\xb6\x75\x01" * 50_000,
        "AIFF of 2^32 samples": b"FORM\x7f\xff\xff\xffAIFFCOMM\0\0\0\x12\0\x01\xff\xff\xff\xff\0\x10" + bytes(_SOME),
        "AIFF of 50,000 chunks": b"FORM\x7f\xff\xff\xffAIFF" + b"junk\0\0\0\0" * 50_000,
        "AMR of empty frames": b"#!AMR\n" + b"\x7c" * _SOME,
        "ADTS of empty frames": b"\xff\xf1\x50\x40\x00\xff\xfc" * 20_000,
        "CAF of 2^63 bytes": b"caff\0\x01\0\0desc\x7f" + b"\xff" * 7 + bytes(_SOME),
        "AU of 2^31 channels": struct.pack(">4sIIIII", b".snd", 24, 2**31, 3, 16_000, 2**31) + bytes(_SOME),
        "ASF of 2^64 bytes": _ASF + b"\xff" * _SOME,
    }


def videos() -> Mapping[str, bytes]:
    """Refused, each of them."""
    size = (64, 48)
    mp4 = films.film(frames=12, size=size)
    pieces = films.film(frames=12, size=size, muxer={"movflags": "frag_keyframe+empty_moov"})
    return {
        "MP4 of boxes in boxes": nested(b"isom", 50_000),
        "MP4 of 50,000 empty boxes": box(b"ftyp", b"isom", bytes(4)) + box(b"free") * 50_000,
        "MP4 of a million frames of a byte": _many_samples(mp4, 1_000_000),
        "MP4 of a fragment of two million frames": put(put(pieces, b"trun", 8, 2_000_000), b"trun", 4, 1),
        "MP4 of a fragment of 2^32 frames": put(put(pieces, b"trun", 8, 2**32 - 1), b"trun", 4, 1),
        "MP4 of two frames ten hours apart": films.film(frames=2, size=size, times=[0, 36_000_000]),
        "MP4 of a day": films.film(frames=12, size=size, times=[7_200_000 * hour for hour in range(12)]),
        "Matroska of void": _MATROSKA + b"\xec\x80" * 100_000,
        "WebM of clusters in clusters": _MATROSKA + b"\x1f\x43\xb6\x75\x01" * 50_000,
        "AVI of lists": b"RIFF\xff\xff\xff\xffAVI " + b"LIST\4\0\0\0hdrl" * 50_000,
        "MPEG-TS of 2,048 programmes": b"".join(_programme(number) for number in range(0, 8_192, 4)),
        "MPEG-TS of nothing": (b"\x47\x1f\xff\x10" + bytes(184)) * 2_000,
        "GIF of a huge canvas": bombs.gif(65_535, 65_535, (0, 0, 1, 1), (1, 1, 1, 1)),
    }


def put(data: bytes, marker: bytes, offset: int, value: int) -> bytes:
    """`data` with a number of 32 bits at `offset` from where `marker` begins."""
    place = data.index(marker) + offset
    return data[:place] + value.to_bytes(4, "big") + data[place + 4 :]


def _many_samples(data: bytes, count: int) -> bytes:
    """A file of ISO's kind that says with few bytes that it has `count` samples of one byte each."""
    sizes = put(put(data, b"stsz", 8, 1), b"stsz", 12, count)
    return put(put(sizes, b"stsc", 16, count), b"stts", 12, count)


def _wavs() -> Mapping[str, bytes]:
    head = clip(np.zeros(16, np.float32), 16_000, subtype="PCM_16")[:36]
    return {
        "WAV of a quarter of an hour of silence": _wav(7, 1, 1_000, b"\xff" * 900_000),
        "WAV of 65,535 channels": _wav(1, 65_535, 16_000, bytes(_SOME)),
        "WAV at 4 GHz": _wav(1, 1, 2**32 - 1, bytes(_SOME)),
        "WAV at 0 Hz": _wav(1, 1, 0, bytes(_SOME)),
        "WAV of 50,000 empty chunks": b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 50_000,
        "WAV of lists in lists": head[:12] + b"LIST\xff\xff\xff\x7f" + b"LIST\x08\0\0\0" * 50_000,
        "WAV of a thousand formats": head[:12] + head[12:36] * 1_000,
    }


def _wav(coding: int, channels: int, rate: int, body: bytes) -> bytes:
    width = 1 if coding == 7 else 2
    form = struct.pack("<HHIIHH", coding, channels, rate, 0, channels * width & 0xFFFF, 8 * width)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt \x10\0\0\0" + form
    return head + b"data" + struct.pack("<I", len(body)) + body


def _flac(samples: NDArray[np.int16]) -> bytes:
    target = BytesIO()
    soundfile.write(target, samples, 1_000, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def _ogg_page(stream: int) -> bytes:
    return struct.pack("<4sBBqIIIBB", b"OggS", 0, 2, 0, stream, 0, 0, 1, 30) + b"\x01vorbis" + bytes(23)


def _programme(number: int) -> bytes:
    return b"\x47" + struct.pack(">H", 0x4000 | number) + b"\x10\0\0\1\xe0\0\0" + bytes(178)
