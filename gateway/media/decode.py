"""Decodes one part as its request wants it: what a worker runs. Pure, slow."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pybase64

from gateway.errors import MediaError
from gateway.media import audio, image, video
from gateway.media.prepared import Prepared
from gateway.settings import Family, LongAudio, Modality


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model takes, a request asks for and the limits allow: all, beside the data, that the result depends on.

    `max_soft_tokens` is for each image (None: the model's default); `long_audio` is the policy for clips that are
    longer than the model hears; the lengths are in seconds. `tenant` is for whom results are kept, None for all.
    """

    tenant: str | None
    family: Family
    max_soft_tokens: int | None
    pan_and_scan: bool
    shrink: bool
    long_audio: LongAudio
    video_audio: bool
    max_pixels: int
    max_audio_seconds: float
    max_clips: int
    max_video_seconds: float
    max_video_frames: int

    def video_limits(self) -> video.VideoLimits:
        """The part of it that is about videos."""
        return video.VideoLimits(
            max_pixels=self.max_pixels,
            max_seconds=self.max_video_seconds,
            max_frames=self.max_video_frames,
            family=self.family,
            audio=self.long_audio if self.video_audio else None,
            max_audio_seconds=self.max_audio_seconds,
            max_pieces=self.max_clips,
        )


def decode(modality: Modality, data: bytes, embedded: bool, wanted: Wanted, rate: float | None = None) -> Prepared:
    """What the engine gets for `data`, which is base64 where `embedded`. `rate` in frames per second is for videos.

    Raises MediaError and its kin.
    """
    return _DECODERS[modality](from_base64(data) if embedded else data, wanted, rate)


def seconds(data: bytes, embedded: bool, wanted: Wanted) -> float:
    """How long a video is.

    Raises MediaError and its kin.
    """
    return video.probe(from_base64(data) if embedded else data, wanted.video_limits())


def from_base64(text: bytes) -> bytes:
    """Decodes standard base64, strictly, as vLLM does.

    Raises MediaError where it is none.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("the data is not valid base64") from None


def _image(data: bytes, wanted: Wanted, rate: float | None) -> Prepared:  # noqa: ARG001
    return image.prepare(
        data,
        wanted.max_pixels,
        wanted.family,
        wanted.max_soft_tokens,
        shrink=wanted.shrink,
        pan_and_scan=wanted.pan_and_scan,
    )


def _audio(data: bytes, wanted: Wanted, rate: float | None) -> Prepared:  # noqa: ARG001
    return audio.prepare(data, wanted.max_audio_seconds, wanted.family, wanted.long_audio, wanted.max_clips)


def _video(data: bytes, wanted: Wanted, rate: float | None) -> Prepared:
    return video.prepare(data, wanted.video_limits(), rate)


_DECODERS: dict[Modality, Callable[[bytes, Wanted, Any], Prepared]] = {
    Modality.IMAGE: _image,
    Modality.AUDIO: _audio,
    Modality.VIDEO: _video,
}
