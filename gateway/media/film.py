"""Opens films of any common container, says when each frame is shown, and decodes any of them. Pure, slow."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import groupby

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media import containers
from gateway.media.video_formats import demuxer

#: FFmpeg's decoders that may run here, and no other of its hundreds.
_DECODERS = (
    *("h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video", "mpeg1video"),
    *("mjpeg", "h263", "msmpeg4v2", "msmpeg4", "prores", "ffv1", "rawvideo", "png", "gif"),
)

#: Frames in a second of the longest film, which bounds the work on one whose header lies.
_MOST_RATE = 240

_BROKEN = "the video is truncated or corrupt"


@dataclass(frozen=True, slots=True)
class Film:
    """An open film: its packets as stored, and the times at which frames are shown, ascending, in `tick` seconds."""

    stream: VideoStream
    packets: Sequence[Packet[VideoStream]]
    positions: dict[int, int]
    times: Sequence[int]
    keys: Sequence[int]
    tick: Fraction
    has_sound: bool

    @property
    def pixels(self) -> int:
        """Of one frame."""
        return int(self.stream.codec_context.width * self.stream.codec_context.height)

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last, which is taken to stay as long as the others do."""
        count = len(self.times)
        if count > 1:
            return self.at(self.times[-1]) * count / (count - 1)
        return float((self.packets[0].duration or 0) * self.tick)

    def at(self, time: int) -> float:
        """Seconds from the first frame to `time`."""
        return float((time - self.times[0]) * self.tick)

    def key_before(self, time: int) -> int:
        """When the last frame up to `time` is shown that needs no other to be decoded."""
        return self.keys[max(0, bisect_right(self.keys, time) - 1)]

    def nearest_key(self, time: int) -> int:
        """When the frame nearest to `time` is shown that needs no other to be decoded."""
        at = bisect_right(self.keys, time)
        return min(self.keys[max(0, at - 1) : at + 1], key=lambda key: abs(key - time))

    def work(self, wanted: Iterable[int]) -> int:
        """How many frames `frames(wanted)` has to decode."""
        return sum(len(self._needed(key, list(group))) for key, group in groupby(wanted, self.key_before))

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames shown at the `wanted` times, ascending, each with its time; those not found at first come later.

        A frame that is broken is replaced by the next before the following key frame that is not, or left out.
        """
        for key, group in groupby(wanted, self.key_before):
            missing = set(group)
            for time, frame in self._decoded(key, missing):
                if time in missing:
                    missing.discard(time)
                    yield time, frame
            if missing:  # perhaps the key frame is none: in films of cameras each may refresh a part of the picture
                yield from _due(self._decoded(self.key_before(key - 1), missing), deque(sorted(missing)))

    def _needed(self, key: int, times: Collection[int]) -> Sequence[Packet[VideoStream]]:
        last = max(self.positions[time] for time in times)
        return self.packets[self.positions[key] : last + 1]

    def _decoded(self, key: int, times: Collection[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Frames from a key frame on; those that are neither in `times` nor needed for others are not decoded."""
        context = self.stream.codec_context
        exact = frozenset(times)
        for packet in self._needed(key, times):
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in exact else "NONREF"
            yield from _lenient(self.stream, packet)
        context.skip_frame = "DEFAULT"
        yield from _lenient(self.stream, None)
        context.flush_buffers()


@contextmanager
def opened(data: bytes, max_seconds: float, max_pixels: int) -> Iterator[Film]:
    """The film in `data`, for as long as the context lasts.

    Raises MediaError where it is none or is broken, MediaTooLargeError over `max_seconds` or where a frame has more
    than `max_pixels` (width times height), which is known before one is decoded.
    """
    if containers.is_cut_off(data):
        raise MediaError("the video is truncated: its container goes on behind the end of the data")
    options = {"codec_whitelist": ",".join(_DECODERS), "max_pixels": str(max_pixels)}
    with _reading(), _container(data, options) as container:
        stream = _track(container)
        _check_pixels(stream, max_pixels)
        stream.thread_count = 1
        stream.codec_context.options = options
        film = _film(container, stream, _packets(container, stream, len(data), int(max_seconds * _MOST_RATE)))
        if film.seconds > max_seconds:
            limit = f"the limit is {max_seconds:g} (media.max_video_seconds)"
            raise MediaTooLargeError(f"the video lasts {film.seconds:.1f} seconds; {limit}")
        yield film


def _container(data: bytes, options: dict[str, str]) -> InputContainer:
    container: InputContainer = av.open(BytesIO(data), format=_format(data), options=options, metadata_errors="ignore")
    return container


def _format(data: bytes) -> str:
    if not data:
        raise MediaError("the video is empty")
    if found := demuxer(data):
        return found
    raise MediaError("the data is no video of a known format (MP4, MOV, WebM, Matroska, AVI, MPEG-TS, GIF)")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except MemoryError:
        raise MediaTooLargeError("the video is too large to decode") from None
    except (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, RuntimeError) as fault:
        raise MediaError(_BROKEN) from fault


def _track(container: InputContainer) -> VideoStream:
    """The first track of pictures that move: players' cover art is one as well."""
    moving = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    if not moving:
        raise MediaError("the file has no video track")
    if moving[0].codec_context is None or moving[0].codec_context.name not in _DECODERS:
        raise MediaError("the video's codec is not supported (H.264, HEVC, AV1, VP8, VP9, MPEG-4, MPEG-2, MJPEG are)")
    return moving[0]


def _check_pixels(stream: VideoStream, limit: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise MediaError(_BROKEN)
    if width * height > limit:
        actual = f"{width}x{height} = {width * height}"
        raise MediaTooLargeError(
            f"the video's frames have {actual} pixels; the limit is {limit} (media.max_image_pixels)"
        )


def _packets(container: InputContainer, stream: VideoStream, size: int, most: int) -> list[Packet[VideoStream]]:
    """All packets of the track, as stored.

    Raises MediaTooLargeError where they are more than `most`, MediaError where they hold more bytes than a file of
    `size` can, as parts of it that are told to be many frames do, or where it ends within one.
    """
    kept: list[Packet[VideoStream]] = []
    total = 0
    for packet in container.demux(stream):
        if not packet.size or _time(packet) is None:
            continue
        kept.append(packet)
        total += packet.size
        if total > 2 * size or (packet.is_corrupt and container.format.name != "mpegts"):
            raise MediaError(_BROKEN)
        if len(kept) > most:
            limit = f"{most}, {_MOST_RATE} for each second that it may last (media.max_video_seconds)"
            raise MediaTooLargeError(f"the video has more frames than {limit}")
    return kept


def _film(container: InputContainer, stream: VideoStream, packets: Sequence[Packet[VideoStream]]) -> Film:
    first = next((index for index, packet in enumerate(packets) if packet.is_keyframe), 0)
    usable = packets[first:]
    positions = {time: index for index, packet in enumerate(usable) if (time := _time(packet)) is not None}
    hidden = {_time(packet) for packet in usable if packet.is_discard}
    keys = sorted(time for time, index in positions.items() if usable[index].is_keyframe)
    keys = keys or sorted(positions)[:1]
    times = sorted(time for time in positions if time >= keys[0] and time not in hidden)
    if not times:
        raise MediaError("the video has no frames")
    return Film(stream, usable, positions, times, keys, stream.time_base or Fraction(1), bool(container.streams.audio))


def _time(stored: Packet[VideoStream] | VideoFrame) -> int | None:
    """When it is shown; where the container does not tell, the order of decoding stands in."""
    return stored.dts if stored.pts is None else stored.pts


def _lenient(stream: VideoStream, packet: Packet[VideoStream] | None) -> Iterator[tuple[int, VideoFrame]]:
    """What decoding a packet gives, nothing where it is broken; None drains the decoder."""
    try:
        frames = stream.decode(packet)
    except av.FFmpegError:
        return
    for frame in frames:
        if (time := _time(frame)) is not None:
            yield time, frame


def _due(frames: Iterable[tuple[int, VideoFrame]], times: deque[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Those frames that are the first at or after one of `times`."""
    for time, frame in frames:
        if times and time >= times[0]:
            while times and time >= times[0]:
                times.popleft()
            yield time, frame
