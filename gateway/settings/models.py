"""What clients can name as model: the section `models`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.settings.access import Limits
from gateway.settings.fields import Count, Family, Frozen, LongAudio, Modality


class ResponseModel(StrEnum):
    """Which name a reply carries."""

    REQUESTED = "requested"
    SERVED = "served"


class Target(Frozen):
    """One of the models that a name stands for."""

    model: str
    """A name under `models` that has no targets itself."""
    weight: Annotated[int, Field(ge=0)] = 1
    """Its share of the requests, beside the weights of the others. 0: none, until that is changed."""


class Deprecation(Frozen):
    """Says by headers that a name goes away; requests are answered all the same."""

    since: date
    """From when on the name should not be used any more: the header `Deprecation`."""
    sunset: date | None = None
    """When it may be gone: the header `Sunset`."""
    successor: str | None = None
    """The name under `models` to use instead: the header `Link`."""


class Sticky(StrEnum):
    """By what the share of requests for a target is dealt out."""

    NONE = "none"
    USER = "user"
    SESSION = "session"


class ModelSettings(Frozen):
    """What a model name that clients use stands for. The name `*` answers for every other name.

    It is a model of an engine, or a LoRA adapter of one (`base`), or a name for other names (`targets`). For names of
    the last two kinds `engine`, `family`, `modalities` and what else is about the model are those of the model meant.
    """

    engine: str = "default"
    """Key of the engine under `engines`."""
    served_name: str | None = None
    """The engine's name for the model. None: the same as the clients'."""
    base: str | None = None
    """Name under `models` of which this is a LoRA adapter: `served_name` is the adapter's name in its engine."""
    targets: tuple[Target, ...] = ()
    """Names that share the requests by weight, such as a canary with 5 beside 95. Empty: this is a model itself."""
    sticky: Sticky = Sticky.NONE
    """Whether all requests of one user (field `user` or `safety_identifier`, Anthropic's `metadata.user_id`, else the
    key) or of one session (header `x-session-id`) go to the same of the targets."""
    fallbacks: tuple[str, ...] = ()
    """Names under `models`, without targets of their own, that are tried in order where the engine is unavailable or
    overloaded, as long as nothing was answered."""
    defaults: Mapping[str, Any] = {}
    """Fields for requests that do not have them, such as `{temperature: 0.7}`."""
    overrides: Mapping[str, Any] = {}
    """Fields that requests get whether they have them or not."""
    deprecated: Deprecation | None = None
    """Says that the name goes away."""
    hidden: bool = False
    """Whether /v1/models leaves the name out. It can be used all the same."""
    limits: Limits = Limits()
    """How much of it may be used, by all callers together."""
    owned_by: str = "google"
    """Shown by /v1/models."""
    response_model: ResponseModel = ResponseModel.REQUESTED
    """What replies carry as `model`: the name that was requested, or the engine's for the model that answered."""
    family: Family = Family.GEMMA4
    """Which Gemma it is: decides image budgets and audio limits."""
    modalities: frozenset[Modality] = frozenset({Modality.TEXT, Modality.IMAGE})
    """What it takes as input; a part of another kind is refused."""
    max_model_len: Count | None = None
    """Context length in tokens, shown by /v1/models."""
    image_budget: Literal[70, 140, 280, 560, 1120] | None = None
    """Gemma 4: soft tokens for images that ask for no number of them. None: the engine's default, 280."""
    pan_and_scan: bool = False
    """Gemma 3: whether the engine cuts images into crops (`--mm-processor-kwargs '{"do_pan_and_scan": true}'`)."""
    long_audio: LongAudio = LongAudio.REJECT
    """A clip longer than the 30 s that the model hears is refused, split at quiet points, or cut with a warning header.
    A request may choose with its field `long_audio`."""
    video_audio: bool = False
    """Whether a video's sound is sent along, as a clip after it, to a model that hears. A request may choose with its
    field `video_audio`."""
