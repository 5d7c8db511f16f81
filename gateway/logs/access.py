"""The access log: a line for each request on standard error, made a few at a time, so that none waits for one.

The lines look as other logs do. They do not go through the logging module, which takes longer to write one than the
gateway takes to let a request in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from gateway.logs import JsonFormatter, text
from gateway.settings import LogSettings

#: Characters of an error's message.
REASON = 300

#: Levels that leave it out.
_ABOVE_INFO = frozenset({"warning", "error"})


class AccessRecord(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """One request. `at` is Unix time in seconds; what is None is left out."""

    at: float
    method: str
    path: str
    status: int
    request_id: str
    model: str | None = None
    key: str | None = None
    engine: str | None = None
    seconds: float
    target: str | None = None
    replica: str | None = None
    trace_id: str | None = None
    first_byte_seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    reason: str | None = None


_FIELDS = AccessRecord.__struct_fields__[4:]


class AccessLog:
    """Writes lines as the section `logs` wants them. `on`: whether at all."""

    def __init__(self, settings: LogSettings, *, on: bool) -> None:
        self.on = on and settings.level not in _ABOVE_INFO
        self._line = _json if settings.format == "json" else _text

    def write(self, records: Iterable[AccessRecord]) -> None:
        """Writes a line for each."""
        sys.stderr.write("".join(map(self._line, records)))
        sys.stderr.flush()


def _text(record: AccessRecord) -> str:
    """Field by field: a loop over their names takes three times as long."""
    line = f"{_time(record.at)} INFO    {record.method} {record.path} {record.status} request_id={record.request_id}"
    if record.model is not None:
        line += f" model={_quoted(record.model)}"
    if record.key is not None:
        line += f" key={_quoted(record.key)}"
    if record.engine is not None:
        line += f" engine={_quoted(record.engine)}"
    line += f" seconds={record.seconds}"
    if record.target is not None:
        line += f" target={_quoted(record.target)}"
    if record.replica is not None:
        line += f" replica={record.replica}"
    if record.trace_id is not None:
        line += f" trace_id={record.trace_id}"
    if record.first_byte_seconds is not None:
        line += f" first_byte_seconds={record.first_byte_seconds}"
    if record.prompt_tokens is not None:
        line += f" prompt_tokens={record.prompt_tokens} completion_tokens={record.completion_tokens}"
    if record.error is None:
        return line + "\n"
    return f"{line} error={_quoted(record.error)}{f' reason={text(record.reason)}' if record.reason else ''}\n"


@lru_cache(4096)
def _quoted(value: str) -> str:
    return text(value)


def _json(record: AccessRecord) -> str:
    fields: dict[str, Any] = {name: value for name in _FIELDS if (value := getattr(record, name)) is not None}
    message = f"{record.method} {record.path} {record.status}"
    return JsonFormatter.line(_time(record.at), "info", "gateway.access", message, fields) + "\n"


def _time(at: float) -> str:
    second, fraction = divmod(at, 1)
    return f"{_second(int(second))}.{int(fraction * 1000):03}Z"


@lru_cache(4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
