"""What the usage log says of a request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

_encoder = msgspec.json.Encoder()


class Finish(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"
    REFUSED = "refused"
    ABORTED = "aborted"
    FAILED = "failed"


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request. What each field means stands in docs/usage.md; those at their default are left out of the line."""

    time: datetime
    request_id: str
    key: str | None = None
    key_name: str | None = None
    model: str | None = None
    target: str | None = None
    engine: str | None = None
    path: str
    status: int
    finish: Finish
    error: str | None = None
    stream: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    video_tokens: int = 0
    estimated: bool = False
    queue_seconds: float | None = None
    first_byte_seconds: float | None = None
    seconds: float = 0.0
    user: str | None = None


def encode(records: Sequence[UsageRecord]) -> bytes:
    """A line of JSON for each."""
    try:
        return _encoder.encode_lines(records)
    except UnicodeEncodeError:
        return _encoder.encode_lines([_readable(record) for record in records])


def _readable(record: UsageRecord) -> UsageRecord:
    """With what is no text replaced: a claim of a token, for one, can hold half a surrogate pair."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    texts = {name: value.encode(errors="replace").decode() for name, value in values.items() if isinstance(value, str)}
    return msgspec.structs.replace(record, **texts)
