"""Structured logs on standard error: text for people or JSON for machines, the request id in every line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.settings import LogSettings

#: Set for the time of one request.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {k}={text(v)}" for k, v in _fields(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.getMessage()}{pairs}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


def text(value: object) -> str:
    """As it is if it is one word, else quoted and on one line."""
    shown = str(value)
    return shown if shown.isprintable() and " " not in shown else msgspec.json.encode(shown).decode()


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info is not None:
            fields["exception"] = self.formatException(record.exc_info)
        return self.line(_time(record), record.levelname.lower(), record.name, record.getMessage(), fields)

    @staticmethod
    def line(time: str, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
        """What such a line is made of."""
        document = {"time": time, "level": level, "logger": logger, "message": message, **fields}
        return msgspec.json.encode(document).decode()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    identifier = request_id.get()
    if identifier is not None:
        fields.setdefault("request_id", identifier)
    return fields


def configure(settings: LogSettings) -> None:
    """Sends all logs of this process to standard error. Call once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # httpx logs each URL that it fetches, with its query, at info: a URL may carry a signature.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It says of each of our two servers that it starts and stops, which we say ourselves.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # It warns of each broken form, of which the client is told anyway.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
