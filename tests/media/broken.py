"""Makes broken media: the same files at each run, each with what has to come of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from gateway.media import heif
from gateway.settings import Modality
from tests.media import bombs, clips, endless, films, lies, strangers
from tests.media.samples import image_bytes, picture, tone

#: Bytes from the start in which lengths and counts stand, and all of them in files of raw pixels or samples.
_HEAD, _HEADERS = 64, 256

#: Formats in which no damage to the picture or sound stays unseen: compressed without loss, or with checksums.
_CHECKED = frozenset({"PNG", "PNG palette", "PNG 16 bit", "FLAC 16 bit", "FLAC 24 bit"})

#: Formats in which any bytes are some picture or sound.
_RAW = frozenset(
    {"BMP", "PPM", "TGA", "TIFF raw", "WAV 8 bit", "WAV 16 bit", "WAV 24 bit", "WAV 32 bit", "WAV A-law", "WAV mu-law"}
    | {
        "WAV extensible",
        "WAV RF64",
        "AIFF 16 bit",
        "AIFF 24 bit",
        "AIFC mu-law",
        "CAF 16 bit",
        "AU 16 bit",
        "AU mu-law",
    }
)

#: What is missing is behind the first picture, or the format is a stream, which may end anywhere.
_WHOLE_BY_HALF = frozenset({"APNG", "MPO", "GIF animated", "TIFF pages", "MPEG-TS H.264", "MPEG-TS MPEG-2", "GIF"})

#: The last byte belongs to a checksum, an end mark, an index, a footer or the very last frame of a stream.
_WHOLE_BUT_ONE = _WHOLE_BY_HALF | {
    *("PNG", "PNG palette", "PNG 16 bit", "TIFF fax", "TGA", "TGA run lengths"),
    *("CAF ALAC", "MP3", "MPEG-TS film", "MP4 AAC in fragments", "WMA", "MP4 fragments"),
}


class Expected(Enum):
    """The statuses that may be answered.

    READ: what is broken is not the sound or the picture, or any bytes are one. EITHER: flips and holes in the head of
    a file or in what a lossy codec wrote, of which some happen to mean something.
    """

    REFUSED = frozenset({400, 413})
    READ = frozenset({200})
    EITHER = frozenset({200, 400, 413})


@dataclass(frozen=True)
class Broken:
    """One file, and what has to come of it."""

    name: str
    modality: Modality
    data: bytes
    expected: Expected = Expected.REFUSED


def corpus() -> Iterator[Broken]:
    """All of them."""
    for modality, samples in ((Modality.IMAGE, images()), (Modality.AUDIO, audio()), (Modality.VIDEO, videos())):
        yield from _damaged(modality, samples)
        yield from _lying(modality, samples)
        yield from _strange(modality)
    yield from _crafted()


def _damaged(modality: Modality, samples: Mapping[str, bytes]) -> Iterator[Broken]:
    for name, data in samples.items():
        for kind, damage in damages(name, data).items():
            yield Broken(f"{name}, {kind}", modality, damage, _expected(name, kind))


def _lying(modality: Modality, samples: Mapping[str, bytes]) -> Iterator[Broken]:
    for field in lies.FIELDS[modality]:
        for lie, data, read in field.lies(samples[field.sample]):
            yield Broken(f"{field.sample}, {lie}", modality, data, Expected.READ if read else Expected.REFUSED)


def _strange(modality: Modality) -> Iterator[Broken]:
    for name, data in strangers.files().items():
        yield Broken(f"{name} as {modality}", modality, data)
    for name in strangers.MAGICS:
        yield Broken(f"noise that begins like {name} as {modality}", modality, strangers.random_behind(name))


def _crafted() -> Iterator[Broken]:
    crafted = ((Modality.IMAGE, bombs.images()), (Modality.AUDIO, endless.audio()), (Modality.VIDEO, endless.videos()))
    for modality, files in crafted:
        yield from (Broken(name, modality, data) for name, data in files.items())
    yield from (Broken(name, Modality.IMAGE, data, Expected.READ) for name, data in bombs.harmless().items())


def damages(name: str, data: bytes) -> Mapping[str, bytes]:
    """The ways in which any file can be damaged, and what each makes of this one."""
    chance = random.Random(name)
    half, part = len(data) // 2, len(data) // 8
    return {
        "cut after 4 bytes": data[:4],
        "cut in its head": data[: chance.randrange(12, _HEAD)],
        "cut at half": data[:half],
        "one byte short": data[:-1],
        "flips in its head": _flipped(data, chance, range(_HEAD), 4),
        "flips": _flipped(data, chance, range(_HEADERS, len(data)), 16),
        "zeroed": data[:half] + bytes(part) + data[half + part :],
        "doubled": data[:half] + data[half - part :],
    }


def _flipped(data: bytes, chance: random.Random, places: range, count: int) -> bytes:
    broken = bytearray(data)
    for place in chance.sample(places, k=count):
        broken[place] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _expected(name: str, kind: str) -> Expected:
    if kind.startswith("cut") or kind == "one byte short":
        whole = {"cut at half": _WHOLE_BY_HALF, "one byte short": _WHOLE_BUT_ONE}.get(kind, frozenset())
        return Expected.READ if name in whole else Expected.REFUSED
    if kind == "flips in its head":
        return Expected.EITHER
    return Expected.REFUSED if name in _CHECKED else Expected.READ if name in _RAW else Expected.EITHER


def images() -> Mapping[str, bytes]:
    """One picture in every format."""
    heif.register()
    colours = _noisy()
    grey, palette = colours.convert("L"), colours.convert("P")
    frames = [colours.rotate(180), colours.copy()]
    several = {"save_all": True, "append_images": frames}
    pages = image_bytes("TIFF", colours, **several)
    return {
        "PNG": image_bytes("PNG", colours),
        "PNG palette": image_bytes("PNG", palette),
        "PNG 16 bit": image_bytes("PNG", grey.convert("I;16")),
        "APNG": image_bytes("PNG", colours, **several),
        "JPEG": image_bytes("JPEG", colours),
        "JPEG progressive": image_bytes("JPEG", colours, progressive=True),
        "JPEG EXIF": image_bytes("JPEG", colours, exif=_turned()),
        "JPEG CMYK": image_bytes("JPEG", colours.convert("CMYK")),
        "MPO": image_bytes("MPO", colours, **several),
        "WebP lossy": image_bytes("WEBP", colours),
        "WebP lossless": image_bytes("WEBP", colours, lossless=True),
        "WebP animated": image_bytes("WEBP", colours, **several),
        "GIF animated": image_bytes("GIF", palette, **several),
        "BMP": image_bytes("BMP", colours),
        "TIFF raw": image_bytes("TIFF", colours),
        "TIFF LZW": image_bytes("TIFF", colours, compression="tiff_lzw"),
        "TIFF Deflate": image_bytes("TIFF", colours, compression="tiff_adobe_deflate"),
        "TIFF PackBits": image_bytes("TIFF", colours, compression="packbits"),
        "TIFF JPEG": image_bytes("TIFF", colours, compression="jpeg"),
        "TIFF fax": image_bytes("TIFF", grey.convert("1"), compression="group4"),
        "TIFF pages": pages,
        "AVIF": image_bytes("AVIF", colours),
        "HEIC": image_bytes("HEIF", colours),
        "JPEG 2000": image_bytes("JPEG2000", colours),
        "JPEG 2000 bare": image_bytes("JPEG2000", colours, no_jp2=True),
        "PPM": image_bytes("PPM", colours),
        "TGA": image_bytes("TGA", colours),
        "TGA run lengths": image_bytes("TGA", colours, compression="tga_rle"),
    }


def _noisy() -> Image.Image:
    noise = np.random.default_rng(3).integers(-12, 13, (64, 96, 3))
    return Image.fromarray((np.asarray(picture(size=(96, 64))) + noise).clip(0, 255).astype(np.uint8))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def audio() -> Mapping[str, bytes]:
    """One sound in every format."""
    rate = 16_000
    sound = tone(0.4, rate)
    encoders = {**clips.LOSSLESS, **clips.LOSSY} | {name: encode for name, (_, encode) in clips.FFMPEG.items()}
    return {name: encode(sound, rate) for name, encode in encoders.items()} | {
        "AMR": clips.AMR(tone(0.4, 8_000), 8_000),
        "AMR wide band": clips.wide_band_amr(0.4),
    }


def videos() -> Mapping[str, bytes]:
    """One film in every container."""
    size, sound = (64, 48), tone(0.5, 16_000)
    return {
        "MP4 H.264": films.film(frames=12, size=size, sound=sound),
        "MP4 fragments": films.film(frames=12, size=size, muxer={"movflags": "frag_keyframe+empty_moov"}),
        "MOV MPEG-4": films.film("mov", "mpeg4", frames=12, size=size),
        "WebM VP8": films.film("webm", "libvpx", frames=12, size=size),
        "WebM VP9": films.film("webm", "libvpx-vp9", frames=12, size=size),
        "Matroska H.264": films.film("matroska", frames=12, size=size),
        "AVI MPEG-4": films.film("avi", "mpeg4", frames=12, size=size),
        "AVI MJPEG": films.film("avi", "mjpeg", frames=12, size=size, pixel_format="yuvj420p"),
        "MPEG-TS H.264": films.film("mpegts", frames=12, size=size),
        "MPEG-TS MPEG-2": films.film("mpegts", "mpeg2video", frames=12, size=size),
        "GIF": films.film("gif", "gif", frames=4, size=size, pixel_format="rgb8"),
    }
