"""Makes of a film what the engine gets: evenly spread frames, each with its true time. Pure, slow: for workers.

Engines never decode a film. The frames are those that vLLM 0.32 would pick (`compute_frames_index_to_sample` of its
multimodal/video.py), at the size that Gemma 4's processor gives them, and reach it as a list of pictures under the
media type `video/jpeg` (`VideoMediaIO.load_base64`; what each picture is, Pillow tells by its bytes). The options say
when each is shown, from which vLLM writes the `mm:ss` before it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pybase64
from av.video.frame import VideoFrame
from PIL import Image

from gateway.errors import MediaError, ShortMediaError, SilentMediaError
from gateway.media import audio, budget
from gateway.media.film import Film, opened
from gateway.media.prepared import Piece, Prepared
from gateway.settings import Family, LongAudio, Modality

#: Under this name vLLM takes a list of pictures.
MEDIA_TYPE = "video/jpeg"

#: Times are told to vLLM as numbers of frames of a film with this many in a second: to the millisecond.
_CLOCK = 1000

#: Frames per second at which several short films are shown; few have more.
_MOST_RATE = 24.0

#: Seconds, less than any clock of a container tells apart: what is computed falls on either side of a round number.
_SLACK = 1e-6

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What a film may be, and what becomes of it: `audio` is the policy for its sound, None to leave that out.

    `exact_pixels` is how many may be decoded to get at the very frames that vLLM would pick (the default is about three
    seconds' work); for a film that needs more, key frames near them are taken.
    """

    max_pixels: int
    max_seconds: float
    max_frames: int
    family: Family
    audio: LongAudio | None
    max_audio_seconds: float
    max_pieces: int
    exact_pixels: int = 2_000_000_000


def probe(data: bytes, limits: VideoLimits) -> float:
    """How many seconds the film lasts.

    Raises MediaError where it is none or is broken, MediaTooLargeError over a limit.
    """
    with opened(data, limits.max_seconds, limits.max_pixels) as film:
        return film.seconds


def common_rate(durations: Sequence[float], max_frames: int) -> float:
    """Frames per second that show the longest of these films, in seconds, with `max_frames`.

    The options are one for all films of a request, and so are the times of their frames.
    """
    longest = max(durations, default=0.0)
    return min(max_frames / longest, _MOST_RATE) if longest > 0 else _MOST_RATE


def prepare(data: bytes, limits: VideoLimits, rate: float | None = None) -> Prepared:
    """A piece of at most `max_frames` frames, then the film's sound where it is wanted and there is some.

    Without a `rate` the frames are spread evenly from the first to the last; with one, the frames shown every
    1/rate seconds are taken, which fits several films under the same options.
    Raises MediaError where it is no film or broken, MediaTooLargeError over a limit.
    """
    with opened(data, limits.max_seconds, limits.max_pixels) as film:
        shown = _evenly(film, limits) if rate is None else _regularly(film, limits, rate)
        seconds, has_sound = film.seconds, film.has_sound
    tokens = budget.video_tokens(*shown.size, shown.times)
    piece = Piece(Modality.VIDEO, MEDIA_TYPE, b",".join(shown.pictures), tokens, 0.0, seconds)
    options = _options(shown.times, seconds) if rate is None else {"fps": rate}
    sound = _sound(data, limits) if has_sound else Prepared(())
    return Prepared((piece, *sound.pieces), options, sound.truncated)


@dataclass(frozen=True, slots=True)
class _Shown:
    """The frames for the engine, in base64, the width and height of each, and when each is shown, in seconds."""

    pictures: Sequence[bytes]
    times: Sequence[float]
    size: Size


def _evenly(film: Film, limits: VideoLimits) -> _Shown:
    """From the first frame to the last, as `compute_frames_index_to_sample` has it; times to the millisecond."""
    count = min(limits.max_frames, len(film.times))
    wanted = [film.times[index] for index in np.linspace(0, len(film.times) - 1, count, dtype=int)]
    pictures, size = _pictures(film, wanted, limits)
    times = [math.floor(film.at(time) * _CLOCK + _SLACK) / _CLOCK for time in pictures]
    return _Shown(list(pictures.values()), times, size)


def _regularly(film: Film, limits: VideoLimits, rate: float) -> _Shown:
    """What stands on the screen every 1/rate seconds."""
    count = min(limits.max_frames, max(1, math.ceil(film.seconds * rate - _SLACK)))
    starts = [film.at(time) for time in film.times]
    times = [index / rate for index in range(count)]
    wanted = [film.times[bisect_right(starts, time + _SLACK) - 1] for time in times]
    pictures, size = _pictures(film, wanted, limits)
    decoded = list(pictures)
    on_screen = [decoded[max(0, bisect_right(decoded, time) - 1)] for time in wanted]
    return _Shown([pictures[time] for time in on_screen], times, size)


def _pictures(film: Film, wanted: Sequence[int], limits: VideoLimits) -> tuple[dict[int, bytes], Size]:
    """The frames wanted, in base64 by the time of each, ascending, and the size of all.

    Raises MediaError where most of them cannot be decoded.
    """
    chosen = _affordable(film, sorted(set(wanted)), limits.exact_pixels)
    pictures: dict[int, bytes] = {}
    size: Size | None = None
    for time, frame in film.frames(chosen):
        upright = _upright(frame)
        size = size or _size(upright.size, limits.family)
        pictures[time] = _encode(upright, size)
    if size is None or 2 * len(pictures) < len(chosen):
        limit = f"{limits.max_pixels} pixels (media.max_image_pixels)"
        raise MediaError(f"the video is truncated or corrupt, or its frames become larger than {limit}")
    return dict(sorted(pictures.items())), size


def _affordable(film: Film, wanted: Sequence[int], exact_pixels: int) -> Sequence[int]:
    """The times wanted, or where that is too much work, key frames less than half a step from them."""
    if film.work(wanted) * film.pixels <= exact_pixels:
        return wanted
    reach = (wanted[-1] - wanted[0]) / max(1, len(wanted) - 1) / 2
    near = ((time, film.nearest_key(time)) for time in wanted)
    return sorted({key if abs(key - time) < reach else time for time, key in near})


def _upright(frame: VideoFrame) -> Image.Image:
    """In the colours that OpenCV would give it, and turned as players turn it."""
    colours = frame.reformat(format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    return Image.fromarray(np.ascontiguousarray(np.rot90(colours, round(frame.rotation / 90))))


def _size(actual: Size, family: Family) -> Size:
    """The size to send: that of the model's processor, unless the frame is smaller, which it then enlarges itself."""
    width, height = budget.image_size(*actual, family, budget.VIDEO_FRAME_BUDGET)
    return (width, height) if width * height < actual[0] * actual[1] else actual


def _encode(image: Image.Image, size: Size) -> bytes:
    """Lossless, by the fastest effort: a third of the time of PNG at the same length, and faster to read."""
    fitting = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    target = BytesIO()
    fitting.save(target, "WEBP", lossless=True, quality=0, method=0)
    return pybase64.b64encode(target.getvalue())


def _options(times: Sequence[float], seconds: float) -> Mapping[str, object]:
    """vLLM's `media_io_kwargs`, from which it takes the times of the frames as index / fps."""
    ticks = [round(time * _CLOCK) for time in times]
    total = max(ticks[-1] + 1, len(ticks))
    return {"fps": _CLOCK, "frames_indices": ticks, "total_num_frames": total, "duration": seconds}


def _sound(data: bytes, limits: VideoLimits) -> Prepared:
    if limits.audio is None:
        return Prepared(())
    try:
        return audio.prepare(data, limits.max_audio_seconds, limits.family, limits.audio, limits.max_pieces)
    except (ShortMediaError, SilentMediaError):
        return Prepared(())
    except MediaError as fault:
        message = f"of its sound, which video_audio asks for, {fault.message}"
        raise type(fault)(message, code=fault.code) from fault
