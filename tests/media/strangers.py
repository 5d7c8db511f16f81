"""Makes files that are no image, clip or film, some of which look like one: documents, scripts, lists of addresses."""

from __future__ import annotations

import gzip
import random
import zipfile
from collections.abc import Mapping
from io import BytesIO

from tests.media.samples import image_bytes

#: The first bytes by which a format is told, those that stand behind a length with some length before them.
MAGICS: Mapping[str, bytes] = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "GIF": b"GIF89a",
    "WebP": b"RIFF\0\2\0\0WEBPVP8 ",
    "BMP": b"BM",
    "TIFF": b"II*\0\x08\0\0\0",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG 2000 bare": b"\xff\x4f\xff\x51",
    "PPM": b"P6 ",
    "WAV": b"RIFF\0\2\0\0WAVEfmt ",
    "AIFF": b"FORM\0\0\2\0AIFFCOMM",
    "CAF": b"caff\0\1\0\0desc",
    "AU": b".snd",
    "FLAC": b"fLaC\0\0\0\x22",
    "OGG": b"OggS\0\2",
    "MP3": b"\xff\xfb\x90\x64",
    "MP3 with a tag": b"ID3\4\0\0\0\0\0\x10",
    "AAC": b"\xff\xf1\x50\x80",
    "AMR": b"#!AMR\n",
    "ASF": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
    "MOV": b"\0\0\2\0moov",
    "Matroska": b"\x1aE\xdf\xa3\x9f",
    "AVI": b"RIFF\0\2\0\0AVI LIST",
    "MPEG-TS": (b"\x47\x40\0\x10" + bytes(184)) * 3,
}


def random_behind(name: str, size: int = 2_000) -> bytes:
    """The magic of a format, and noise."""
    return MAGICS[name] + random.Random(name).randbytes(size)


def files() -> Mapping[str, bytes]:
    """Refused as an image, as a clip and as a film."""
    html = b"<!doctype html><script>fetch('http://127.0.0.1:9/')</script><img src=file:///etc/passwd>"
    archive = _zip()
    return {
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(4_096),
        "text": b"not a picture, nor a sound " * 40,
        "HTML": html,
        "SVG with an entity": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text><image href="http://127.0.0.1:9/"/></svg>',
        "XML of a billion laughs": b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><svg>&c;</svg>',
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/URI/URI(http://127.0.0.1:9/)>>>>endobj\n%%EOF",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd)(r) file\nshowpage\n",
        "EPS for DOS": b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(18) + b"\1\0\t\0\0\3" + bytes(64),
        "ICO of a PNG": b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0" + b"\xff\0\0\0\x16\0\0\0" + image_bytes("PNG"),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "playlist of a local file": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list of files to join": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "DASH manifest": b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>',
        "session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        "ZIP": archive,
        "gzip": gzip.compress(html, mtime=0),
        "ELF": b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x3e\0" + bytes(200),
        "script": b"#!/bin/sh\ntouch /tmp/owned\n",
        "pickle": b"\x80\4cposix\nsystem\n(S'true'\ntR.",
        "MIDI": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "tar": b"a".ljust(257, b"\0") + b"ustar\0" + bytes(249) + bytes(1024),
    }


def _zip() -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("a"), bytes(1 << 20))
    return target.getvalue()
