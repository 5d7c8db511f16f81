"""What is learnt of one inference request on its way, for the access log and the metrics at its end."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from dataclasses import dataclass, field

from gateway.logs import access_logger
from gateway.metrics import Metrics
from gateway.upstream.sse import Usage

#: Characters of an error's message in the access log.
_REASON = 300

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


def new_request_id() -> str:
    """An id that no other request of any gateway has; vLLM takes it over, so it must never be the client's choice."""
    return f"req-{_prefix}{next(_numbers):08x}"


@dataclass(slots=True)
class Observation:
    """Filled in as the request goes on. Times are monotonic seconds; `model` is an alias of the catalog."""

    path: str
    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)
    caller: str | None = None
    model: str = "unknown"
    engine: str | None = None
    status: int = 0
    error: str | None = None
    reason: str | None = None
    first_byte: float | None = None
    usage: Usage | None = None

    def saw_bytes(self) -> None:
        """Notes when the first bytes of the answer came."""
        if self.first_byte is None:
            self.first_byte = time.monotonic()

    def record(self, metrics: Metrics, *, access_log: bool) -> None:
        """Counts the finished request and logs it."""
        seconds = time.monotonic() - self.started
        metrics.requests.labels(self.path, self.model, str(self.status)).inc()
        metrics.duration.labels(self.path, self.model).observe(seconds)
        if self.first_byte is not None:
            metrics.first_byte.labels(self.path, self.model).observe(self.first_byte - self.started)
        if self.usage is not None:
            self._count_tokens(metrics, self.usage)
        if access_log and access_logger.isEnabledFor(logging.INFO):
            access_logger.info("POST %s %d", self.path, self.status, extra={"fields": self._fields(seconds)})

    def _count_tokens(self, metrics: Metrics, usage: Usage) -> None:
        kinds = {"prompt": usage.prompt, "completion": usage.completion, **usage.media}
        for kind, count in kinds.items():
            if count:
                metrics.tokens.labels(self.model, kind).inc(count)

    def _fields(self, seconds: float) -> dict[str, object]:
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "model": self.model,
            "key": self.caller,
            "engine": self.engine,
            "seconds": round(seconds, 4),
        }
        if self.first_byte is not None:
            fields["first_byte_seconds"] = round(self.first_byte - self.started, 4)
        if self.usage is not None:
            fields |= {"prompt_tokens": self.usage.prompt, "completion_tokens": self.usage.completion}
        if self.error is not None:
            fields["error"] = self.error
        if self.reason is not None:
            fields["reason"] = self.reason[:_REASON]
        return fields
