"""Makes media whose lengths and counts lie: each field of a table becomes zero, one, and as large as it can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.settings import Modality


@dataclass(frozen=True)
class Field:
    """A number of `width` bytes that stands `offset` bytes from where `marker` begins in a sample.

    `read` has the letter of each value with which the sample is read all the same: it is true or usual (a length that
    is left open, or goes to the end), the file says it elsewhere as well, or it tells of less than there is.
    """

    sample: str
    name: str
    marker: bytes
    offset: int
    width: int = 4
    big: bool = True
    read: str = ""

    def lies(self, data: bytes) -> Iterator[tuple[str, bytes, bool]]:
        """A name, a file, and whether that is read, for each value: 0, 1, half of the most and the most."""
        place = data.index(self.marker) + self.offset
        most = (1 << 8 * self.width) - 1
        for letter, value in zip("01hm", (0, 1, most >> 1, most), strict=True):
            number = value.to_bytes(self.width, "big" if self.big else "little")
            lie = data[:place] + number + data[place + self.width :]
            yield f"{self.name} is {value:#x}", lie, letter in self.read


def _little(sample: str, name: str, marker: bytes, offset: int, width: int = 4, read: str = "") -> Field:
    return Field(sample, name, marker, offset, width, big=False, read=read)


_IMAGES = (
    Field("PNG", "width", b"IHDR", 4),
    Field("PNG", "height", b"IHDR", 8),
    Field("PNG", "length of the pixels", b"IDAT", -4, read="hm"),
    Field("PNG", "length of the header", b"IHDR", -4),
    Field("APNG", "number of frames", b"acTL", 4),
    Field("APNG", "width of a frame", b"fcTL", 8),
    Field("JPEG", "height", b"\xff\xc0", 5, 2, read="1h"),
    Field("JPEG", "width", b"\xff\xc0", 7, 2, read="1h"),
    Field("JPEG", "number of components", b"\xff\xc0", 9, 1),
    Field("JPEG", "length of the frame header", b"\xff\xc0", 2, 2),
    Field("JPEG", "length of the scan header", b"\xff\xda", 2, 2),
    Field("JPEG", "length of the Huffman table", b"\xff\xc4", 2, 2),
    Field("JPEG progressive", "height", b"\xff\xc2", 5, 2, read="1h"),
    Field("JPEG EXIF", "length of the EXIF data", b"\xff\xe1", 2, 2, read="01"),
    Field("MPO", "number of pictures", b"\x01\xb0", 8, read="01hm"),
    _little("WebP lossy", "length of the file", b"RIFF", 4),
    _little("WebP lossy", "length of the pixels", b"VP8 ", 4),
    _little("WebP lossy", "width", b"\x9d\x01\x2a", 3, 2, read="1"),
    _little("WebP lossless", "width and height", b"VP8L", 9),
    _little("WebP animated", "width", b"VP8X", 12, 3),
    _little("WebP animated", "length of a frame", b"ANMF", 4),
    _little("GIF animated", "width", b"GIF8", 6, 2, read="01hm"),
    _little("GIF animated", "height", b"GIF8", 8, 2, read="01hm"),
    _little("BMP", "width", b"BM", 18, read="1"),
    _little("BMP", "height", b"BM", 22, read="1m"),
    _little("BMP", "start of the pixels", b"BM", 10, read="01"),
    _little("BMP", "length of the header", b"BM", 14),
    _little("BMP", "number of colours", b"BM", 46, read="01hm"),
    _little("BMP", "bits", b"BM", 28, 2, read="1"),
    _little("TIFF raw", "start of the directory", b"II*\0", 4),
    Field("JPEG 2000", "width", b"\xff\x51", 6),
    Field("JPEG 2000", "height", b"\xff\x51", 10),
    Field("JPEG 2000", "width of a tile", b"\xff\x51", 22, read="1hm"),
    Field("JPEG 2000", "number of components", b"\xff\x51", 38, 2),
    Field("JPEG 2000 bare", "length of the tile", b"\xff\x90", 6, read="0"),
    Field("JPEG 2000", "length of the code stream", b"jp2c", -4, read="0hm"),
    Field("AVIF", "width", b"ispe", 8, read="1"),
    Field("AVIF", "height", b"ispe", 12, read="1"),
    Field("AVIF", "length of the data", b"mdat", -4, read="01hm"),
    Field("AVIF", "length of the headers", b"meta", -4, read="0"),
    Field("AVIF", "place of the item", b"iloc", 20),
    Field("HEIC", "width", b"ispe", 8),
    Field("HEIC", "height", b"ispe", 12),
    Field("HEIC", "length of the data", b"mdat", -4, read="01hm"),
    Field("HEIC", "length of the headers", b"meta", -4, read="0"),
    Field("HEIC", "number of items", b"iinf", 8, 2, read="1"),
    _little("TGA", "width", b"\0", 12, 2, read="1"),
    _little("TGA", "height", b"\0", 14, 2, read="1"),
    _little("TGA", "length of the name", b"\0", 0, 1, read="01"),
)

_AUDIO = (
    _little("WAV 16 bit", "length of the file", b"RIFF", 4, read="01hm"),
    _little("WAV 16 bit", "length of the format", b"fmt ", 4),
    _little("WAV 16 bit", "channels", b"fmt ", 10, 2, read="1"),
    _little("WAV 16 bit", "sampling rate", b"fmt ", 12),
    _little("WAV 16 bit", "length of a frame", b"fmt ", 20, 2, read="01hm"),
    _little("WAV 16 bit", "bits", b"fmt ", 22, 2, read="1"),
    _little("WAV 16 bit", "length of the samples", b"data", 4, read="hm"),
    _little("WAV IMA ADPCM", "length of a block", b"fmt ", 20, 2),
    _little("WAV IMA ADPCM", "samples of a block", b"fmt ", 26, 2),
    _little("WAV RF64", "length of the samples", b"ds64", 16, 8, read="h"),
    Field("AIFF 16 bit", "channels", b"COMM", 8, 2, read="1"),
    Field("AIFF 16 bit", "number of samples", b"COMM", 10, read="01hm"),
    Field("AIFF 16 bit", "sampling rate", b"COMM", 16, 8),
    Field("AIFF 16 bit", "length of the samples", b"SSND", 4, read="01hm"),
    Field("CAF 16 bit", "sampling rate", b"desc", 12, 8),
    Field("CAF 16 bit", "channels", b"desc", 36, read="1"),
    Field("CAF 16 bit", "length of the samples", b"data", 4, 8, read="01m"),
    Field("CAF ALAC", "number of packets", b"pakt", 12, 8, read="01hm"),
    Field("AU 16 bit", "start of the samples", b".snd", 4, read="01"),
    Field("AU 16 bit", "length of the samples", b".snd", 8, read="m"),
    Field("AU 16 bit", "sampling rate", b".snd", 16),
    Field("AU 16 bit", "channels", b".snd", 20, read="1"),
    Field("FLAC 16 bit", "length of the header", b"fLaC", 5, 3),
    Field("FLAC 16 bit", "longest block", b"fLaC", 10, 2, read="01hm"),
    Field("FLAC 16 bit", "sampling rate", b"fLaC", 18, 2, read="0"),
    Field("FLAC 16 bit", "number of samples", b"fLaC", 22, read="0"),
    _little("OGG Vorbis", "sampling rate", b"\x01vorbis", 12),
    Field("OGG Vorbis", "channels", b"\x01vorbis", 11, 1, read="1"),
    Field("OGG Vorbis", "segments of the page", b"OggS", 26, 1, read="1"),
    _little("OGG Opus", "samples to skip", b"OpusHead", 10, 2),
    Field("OGG Opus", "channels", b"OpusHead", 9, 1, read="1"),
    Field("MP3", "number of frames", b"Xing", 8, read="01"),
    Field("AAC ADTS", "length of a frame", b"\xff\xf1", 3, 3, read="01hm"),
    Field("M4A AAC", "length of the tables", b"moov", -4, read="0"),
    Field("M4A AAC", "ticks in a second", b"mdhd", 16, read="h"),
    Field("M4A AAC", "length in ticks", b"mdhd", 20, read="01hm"),
    Field("M4A AAC", "number of times", b"stts", 8, read="1"),
    Field("M4A AAC", "samples at a time", b"stts", 12, read="01hm"),
    Field("M4A AAC", "number of sizes", b"stsz", 12, read="1"),
    Field("M4A AAC", "one size for all", b"stsz", 8, read="0"),
    Field("M4A AAC", "number of chunks", b"stco", 8, read="1hm"),
    Field("M4A AAC", "place of the first chunk", b"stco", 12),
    Field("M4A AAC", "sampling rate", b"mp4a", 28, read="01hm"),
    Field("WebM Opus", "length of the segment", b"\x18\x53\x80\x67", 4, read="01hm"),
    Field("WebM Opus", "channels", b"\x9f\x81", 2, 1, read="01hm"),
    _little("WMA", "length of the header", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 16, 8, read="01hm"),
)

_VIDEOS = (
    Field("MP4 H.264", "length of the tables", b"moov", -4, read="0"),
    Field("MP4 H.264", "length of the data", b"mdat", -4),
    Field("MP4 H.264", "ticks in a second", b"mdhd", 16, read="h"),
    Field("MP4 H.264", "width", b"avc1", 28, 2, read="01hm"),
    Field("MP4 H.264", "number of times", b"stts", 8, read="1"),
    Field("MP4 H.264", "frames of one time", b"stts", 12, read="0hm"),
    Field("MP4 H.264", "ticks of a frame", b"stts", 16, read="01m"),
    Field("MP4 H.264", "number of sizes", b"stsz", 12, read="1"),
    Field("MP4 H.264", "one size for all", b"stsz", 8, read="0"),
    Field("MP4 H.264", "number of chunks", b"stco", 8, read="hm"),
    Field("MP4 H.264", "frames of a chunk", b"stsc", 16),
    Field("MP4 H.264", "number of offsets", b"ctts", 8, read="0"),
    Field("MP4 H.264", "number of key frames", b"stss", 8, read="01"),
    Field("MP4 H.264", "length of the codec's header", b"avcC", -4, read="0hm"),
    Field("MP4 H.264", "number of edits", b"elst", 8, read="01hm"),
    Field("MP4 fragments", "frames of a fragment", b"trun", 8, read="1"),
    Field("MP4 fragments", "length of a fragment", b"moof", -4, read="0"),
    Field("MOV MPEG-4", "height", b"mp4v", 30, 2, read="01hm"),
    Field("WebM VP8", "width", b"\xb0\x81", 2, 1, read="1hm"),
    Field("WebM VP9", "length of the segment", b"\x18\x53\x80\x67", 4, read="01hm"),
    Field("WebM VP9", "nanoseconds of a tick", b"\x2a\xd7\xb1\x83", 4, 3, read="01hm"),
    _little("AVI MPEG-4", "length of the file", b"RIFF", 4, read="01hm"),
    _little("AVI MPEG-4", "number of frames", b"avih", 24, read="01hm"),
    _little("AVI MPEG-4", "ticks of a frame", b"strh", 28, read="01"),
    _little("AVI MPEG-4", "ticks in a second", b"strh", 32, read="01hm"),
    _little("AVI MPEG-4", "width", b"strf", 12, read="01hm"),
    _little("AVI MPEG-4", "length of the data", b"movi", -4, read="01hm"),
    _little("AVI MPEG-4", "length of a frame", b"00dc", 4, read="01hm"),
    _little("AVI MPEG-4", "length of the index", b"idx1", 4, read="01hm"),
    _little("AVI MJPEG", "height", b"strf", 16, read="01hm"),
    _little("GIF", "width", b"GIF8", 6, 2, read="1hm"),
)

#: Of each modality's samples in `broken`.
FIELDS = {Modality.IMAGE: _IMAGES, Modality.AUDIO: _AUDIO, Modality.VIDEO: _VIDEOS}
