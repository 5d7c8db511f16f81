"""What is told of a traced request at its end. All times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.settings import Endpoint

#: What an inference route does, in the words of OpenTelemetry's conventions as far as they have one.
OPERATIONS: Final[Mapping[str, str]] = {
    Endpoint.CHAT: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    Endpoint.COUNT_TOKENS: "count_tokens",
    Endpoint.TOKENIZE: "tokenize",
    Endpoint.DETOKENIZE: "detokenize",
    Endpoint.TRANSCRIPTIONS: "transcription",
    Endpoint.TRANSLATIONS: "translation",
}


class Phase(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A part of a request: the wait for a place, its media, an exchange with an engine, the relaying."""

    name: str
    start: float
    end: float
    error: str | None = None
    """Code of the error that it ended with."""


class Exchange(Phase, frozen=True, kw_only=True, gc=False):
    """An exchange with an engine. A retry, a fallback or another piece of a recording is one of its own."""

    name: str = "engine"
    number: int = 0
    """What `Trace.outgoing` was given for it."""
    address: str | None = None
    """The replica's URL."""
    served_name: str | None = None
    """The engine's name for the model."""
    engine: str | None = None
    """Its name under `engines`."""
    status: int | None = None
    """What the engine answered; None: nothing."""
    first_byte: float | None = None
    """When the first bytes of its answer's body came."""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request, named as in the usage log. `key` is the public id of the caller's key, never the secret."""

    method: str = "POST"
    path: str
    start: float
    end: float
    request_id: str
    status: int
    finish: str
    """`complete`, `refused`, `aborted` or `failed`."""
    error: str | None = None
    stream: bool = False
    key: str | None = None
    model: str | None = None
    """The name that was called."""
    target: str | None = None
    """The name under `models` that answered."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    phases: tuple[Phase, ...] = ()
