"""What became of each request, from the records that the tool writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How the tool calls its phases in the file that configures it.
WARM_UP, MEASURED = "warmup", "profiling"

#: A stream that ended properly but without its usage: the gateway sent an error event, or the engine stopped.
CUT_SHORT = "stream ended without usage"

#: What the tool calls some errors, in plainer words.
_NAMES = {"InvalidInferenceResultError": "answer without content"}


@dataclass(frozen=True)
class Outcome:
    """One request. Times are in milliseconds, `begun` and `ended` in seconds on one clock."""

    kind: str
    begun: float
    ended: float
    late_ms: float
    """Between when it was due and when it was sent."""
    error: str | None = None
    ttft_ms: float = 0.0
    e2e_ms: float = 0.0
    gaps_ms: tuple[float, ...] = ()
    """Between one event with content and the next."""
    output_tokens: int = 0

    @property
    def tpot_ms(self) -> float | None:
        """Time per token after the first; None if there is no second."""
        if self.error or self.output_tokens < 2:
            return None
        return (self.e2e_ms - self.ttft_ms) / (self.output_tokens - 1)


def read(path: Path, kinds: Sequence[str]) -> list[Outcome]:
    """The measured requests; `kinds` are those of the tool's input, line by line."""
    records = (json.loads(line) for line in path.read_text().splitlines())
    return [outcome(record, kinds) for record in records if record["metadata"]["benchmark_phase"] == MEASURED]


def outcome(record: dict[str, Any], kinds: Sequence[str]) -> Outcome:
    """One record."""
    told, metrics = record["metadata"], record["metrics"]
    line = int(told["conversation_id"].rpartition("_")[2])
    begun, ended = told["request_start_ns"], told["request_end_ns"]
    late = (begun - told["credit_issued_ns"]) / 1e6
    error = _error(record)
    if error is not None:
        return Outcome(kinds[line], begun / 1e9, ended / 1e9, late, error)
    return Outcome(
        kinds[line],
        begun / 1e9,
        ended / 1e9,
        late,
        ttft_ms=metrics["time_to_first_token"]["value"],
        e2e_ms=metrics["request_latency"]["value"],
        gaps_ms=tuple(metrics.get("inter_chunk_latency", {}).get("value", ())),
        output_tokens=int(metrics["usage_completion_tokens"]["value"]),
    )


def _error(record: dict[str, Any]) -> str | None:
    """`401 invalid_api_key` for an answer of the gateway, else what the client met."""
    if (error := record.get("error")) is not None:
        status, kind = error.get("code"), error.get("type") or "unknown"
        return f"{status} {_code(error.get('message', '')) or kind}" if status else _NAMES.get(kind, kind)
    metrics = record["metrics"]
    return None if {"time_to_first_token", "usage_completion_tokens"} <= metrics.keys() else CUT_SHORT


def _code(body: str) -> str | None:
    """Of an OpenAI-shaped error."""
    try:
        error = json.loads(body)["error"]
        code = error["code"] or error["type"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None
