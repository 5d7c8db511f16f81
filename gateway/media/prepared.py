"""What decoding makes of one media part: the pieces that the engine gets in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.settings import Modality


@dataclass(frozen=True, slots=True)
class Piece:
    """One part for the engine. `start` and `seconds` tell its place in the clip or video that it was cut from.

    `base64` is what goes behind `data:<media_type>;base64,` (ASCII), or None where the part is sent as it came.
    `tokens` is what it costs of the context, by `media.budget`. `silent`: there is nothing to hear in it.
    """

    modality: Modality
    media_type: str
    base64: bytes | None
    tokens: int
    start: float = 0.0
    seconds: float = 0.0
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pieces, in order. `options` are vLLM's `media_io_kwargs` for their modality.

    `truncated` is the length of the clip in seconds where only its beginning is among the pieces.
    """

    pieces: tuple[Piece, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    truncated: float | None = None
