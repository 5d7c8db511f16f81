"""Reads what a request asks for its media, and settles on the one budget that its images get.

For each image the first of these counts:

1. `max_soft_tokens` on the image part,
2. `max_soft_tokens` on the request, at its top level or inside `mm_processor_kwargs`,
3. OpenAI's `detail`: low is 70, high and original are 1120,
4. the model's default.

vLLM takes one budget for a request, so images that disagree all get the highest, and the reply says so in a header:
`x-gemma-image-budget: 1120; requested="70, 1120"`. The number is what every image got; `requested` lists, ascending,
what was asked for (the default counted as 280).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequestError
from gateway.media.budget import DEFAULT_IMAGE_BUDGET, IMAGE_BUDGETS
from gateway.protocol import InferenceRequest
from gateway.settings import Family, LongAudio, ModelSettings

#: Budget by `detail`; None leaves it to the model.
DETAILS: Mapping[str, int | None] = {"auto": None, "low": 70, "high": 1120, "original": 1120}

HEADER = b"x-gemma-image-budget"

#: Top-level fields that are read here and never sent as they came.
FIELDS = frozenset({"max_soft_tokens", "mm_processor_kwargs", "media_io_kwargs", "long_audio", "video_audio"})


@dataclass(frozen=True, slots=True)
class ImageWish:
    """What one image part asks for: `max_soft_tokens` as a number checked by `number`, `detail` a key of DETAILS."""

    where: str
    detail: str | None
    max_soft_tokens: int | None


@dataclass(frozen=True, slots=True)
class Budget:
    """Soft tokens for each image of a request, None for the model's default; `requested` where the parts disagree."""

    tokens: int | None = None
    requested: tuple[int, ...] = ()

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The notice for the client; empty where nothing was overruled."""
        if not self.requested:
            return ()
        wishes = ", ".join(map(str, self.requested))
        return ((HEADER, f'{self.tokens}; requested="{wishes}"'.encode()),)


@dataclass(frozen=True, slots=True)
class Options:
    """What becomes of clips that are longer than the model hears, and of videos: their sound, and the most frames."""

    long_audio: LongAudio
    video_audio: bool
    video_frames: int | None = None


def number(value: object, param: str) -> int:
    """`value` as one of the five budgets.

    Raises InvalidRequestError naming `param`.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value in IMAGE_BUDGETS:
        return value
    choices = ", ".join(map(str, IMAGE_BUDGETS))
    raise InvalidRequestError(f"{param} must be one of {choices}.", param=param)


def of_request(request: InferenceRequest) -> int | None:
    """The budget that the request's top level asks for.

    Raises InvalidRequestError for a number that is no budget, for two that differ, and for every other processor
    argument: they would change what the engine does with other tenants' memory.
    """
    values = _numbers(request)
    if len(set(values.values())) > 1:
        raise InvalidRequestError(f"{' and '.join(values)} disagree.", param=next(iter(values)))
    return next(iter(values.values()), None)


def options(request: InferenceRequest, model: ModelSettings) -> Options:
    """What the request's own fields choose, else the model's settings.

    Raises InvalidRequestError naming the field.
    """
    policy = request.get("long_audio", str)
    if policy is not None and policy not in list(LongAudio):
        raise InvalidRequestError(f"long_audio must be one of {', '.join(LongAudio)}.", param="long_audio")
    sound = request.get("video_audio", bool)
    return Options(
        long_audio=model.long_audio if policy is None else LongAudio(policy),
        video_audio=model.video_audio if sound is None else sound,
        video_frames=_frames(request),
    )


def _frames(request: InferenceRequest) -> int | None:
    """vLLM's own way to ask for fewer frames of a video, the only one of its arguments that clients may give."""
    given = request.get("media_io_kwargs", dict[str, Any]) or {}
    _refuse_keys(given, "media_io_kwargs", {"video"})
    video = given.get("video") or {}
    if not isinstance(video, dict):
        raise InvalidRequestError("media_io_kwargs.video must be an object.", param="media_io_kwargs.video")
    _refuse_keys(video, "media_io_kwargs.video", {"num_frames"})
    frames = video.get("num_frames")
    if frames is None or (isinstance(frames, int) and not isinstance(frames, bool) and frames > 0):
        return frames
    param = "media_io_kwargs.video.num_frames"
    raise InvalidRequestError(f"{param} must be a positive integer.", param=param)


def choose(wishes: Sequence[ImageWish], requested: int | None, family: Family, default: int | None = None) -> Budget:
    """The budget of a request with these images; `default` is the model's, where that is not the engine's 280.

    Raises InvalidRequestError for an explicit budget where the model has none.
    """
    if family is not Family.GEMMA4:
        _refuse_explicit(wishes, requested)
        return Budget()
    tokens = [_tokens(wish, requested) or default for wish in wishes]
    if len(set(tokens)) < 2:
        return Budget(tokens[0] if tokens else None)
    asked = sorted({DEFAULT_IMAGE_BUDGET if count is None else count for count in tokens})
    return Budget(asked[-1], tuple(asked) if len(asked) > 1 else ())


def _tokens(wish: ImageWish, requested: int | None) -> int | None:
    return wish.max_soft_tokens or requested or DETAILS[wish.detail or "auto"]


def _numbers(request: InferenceRequest) -> dict[str, int]:
    """Every budget that the top level names, by the path of its field."""
    arguments = request.get("mm_processor_kwargs", dict[str, Any]) or {}
    images = arguments.get("images_kwargs") or {}
    if not isinstance(images, dict):
        raise InvalidRequestError("mm_processor_kwargs.images_kwargs must be an object.", param="mm_processor_kwargs")
    _refuse_keys(arguments, "mm_processor_kwargs", {"max_soft_tokens", "images_kwargs"})
    _refuse_keys(images, "mm_processor_kwargs.images_kwargs", {"max_soft_tokens"})
    given = {
        "max_soft_tokens": request.get("max_soft_tokens", object),
        "mm_processor_kwargs.max_soft_tokens": arguments.get("max_soft_tokens"),
        "mm_processor_kwargs.images_kwargs.max_soft_tokens": images.get("max_soft_tokens"),
    }
    return {param: number(value, param) for param, value in given.items() if value is not None}


def _refuse_keys(arguments: Mapping[str, Any], field: str, known: set[str]) -> None:
    for key in arguments:
        if key not in known:
            param = f"{field}.{key[:64]}"
            only = " and ".join(sorted(known))
            raise InvalidRequestError(f"{param} is not accepted from clients; only {only} is.", param=param)


def _refuse_explicit(wishes: Sequence[ImageWish], requested: int | None) -> None:
    explicit = [wish.where for wish in wishes if wish.max_soft_tokens is not None]
    if requested is not None or explicit:
        param = explicit[0] if explicit else "max_soft_tokens"
        raise InvalidRequestError(
            f"{param}: this model spends 256 tokens on every image; only Gemma 4 takes max_soft_tokens.", param=param
        )
