"""What a request used, told at its end: to its quotas, the metrics, the usage log and the access log."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.access.callers import Caller
from gateway.access.quota import Entry
from gateway.api.estimate import NOTHING
from gateway.api.observation import Observation
from gateway.logs import access_logger
from gateway.metrics import Metrics
from gateway.settings import Modality
from gateway.tracing import RequestRecord, Tracer
from gateway.upstream.sse import Usage
from gateway.usage_log import Finish, UsageLog, UsageRecord

#: Characters of an error's message in the access log.
_REASON = 300

#: Tokens that an engine generates in a second for one request, at most.
_FASTEST = 300

#: What keys are counted as that came after too many others, and requests without one.
OTHER, NOBODY = "other", "none"


class KeyLabels:
    """The values of the label `key`: at most `most` of them and `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def of(self, caller: Caller | None) -> str:
        """What this caller is counted as."""
        if caller is None:
            return NOBODY
        label = caller.label
        if label in self._seen:
            return label
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(label)
        return label


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where the record of a request goes."""

    metrics: Metrics
    labels: KeyLabels
    usage_log: UsageLog | None
    tracer: Tracer | None
    access_log: bool

    def close(self, seen: Observation) -> None:
        """Settles, counts and logs a request that has ended."""
        seconds = time.monotonic() - seen.started
        estimated = seen.usage is None and _generated(seen)
        usage = _guess(seen) if estimated else seen.usage
        if seen.entry is not None:
            _settle(seen.entry, seen, usage)
        finish = _finish(seen)
        self._count(seen, usage, finish, seconds)
        if self.usage_log is not None:
            self.usage_log.write(_record(seen, usage, finish, seconds, estimated))
        if self.tracer is not None and seen.trace is not None and seen.trace.sampled:
            self.tracer.finish(seen.trace, _traced(seen, usage, finish, seconds))
        if self.access_log and access_logger.isEnabledFor(logging.INFO):
            access_logger.info("POST %s %d", seen.path, seen.status, extra={"fields": _fields(seen, usage, seconds)})

    def _count(self, seen: Observation, usage: Usage | None, finish: Finish, seconds: float) -> None:
        metrics = self.metrics
        path, model, key = seen.path, seen.model, self.labels.of(seen.caller)
        metrics.requests.series[path, model, str(seen.status)] += 1
        metrics.key_requests.series[key, finish] += 1
        metrics.duration.observe((path, model), seconds)
        if seen.first_byte is not None:
            metrics.first_byte.observe((path, model), seen.first_byte - seen.started)
        if usage is None:
            return
        tokens = metrics.tokens.series
        tokens[key, model, "prompt"] += usage.prompt
        tokens[key, model, "completion"] += usage.completion
        if usage.prompt_tokens_details is not None:
            for kind, count in {"cached": usage.cached, **usage.media}.items():
                if count:
                    tokens[key, model, kind] += count


def _settle(entry: Entry, seen: Observation, usage: Usage | None) -> None:
    if seen.status == 503 and seen.sent is None:
        # The gateway itself had no room for it.
        entry.cancel()
    else:
        entry.settle(usage.prompt + usage.completion if usage else 0)


def _generated(seen: Observation) -> bool:
    """Whether an engine worked on the request, as far as is known."""
    return seen.sent is not None and seen.status in (200, 499) and seen.expected is not NOTHING


def _guess(seen: Observation) -> Usage:
    """The usage of an answer that broke off, or whose engine does not tell it: a stream's events carry a token each.
    How far an answer had got that was to come in one piece nobody knows: not beyond what the request allows, and not
    beyond what an engine can do in the time.
    """
    seconds = time.monotonic() - (seen.sent or 0)
    most = min(seen.expected.answer, math.ceil(seconds * _FASTEST))
    answer = seen.events if seen.stream or seen.events else most
    return Usage(prompt_tokens=seen.expected.prompt + sum((seen.media_tokens or {}).values()), completion_tokens=answer)


def _finish(seen: Observation) -> Finish:
    if seen.status == 499:
        return Finish.ABORTED
    if seen.status >= 500 or (seen.status == 200 and seen.error is not None):
        return Finish.FAILED
    return Finish.REFUSED if seen.status >= 400 else Finish.COMPLETE


def _record(seen: Observation, usage: Usage | None, finish: Finish, seconds: float, estimated: bool) -> UsageRecord:
    usage = usage or Usage()
    media = seen.media_tokens or {}
    return UsageRecord(
        time=datetime.now(UTC),
        request_id=seen.request_id,
        key=seen.caller.id if seen.caller else None,
        key_name=seen.caller.name if seen.caller else None,
        model=seen.route.alias if seen.route else None,
        target=seen.route.target if seen.route else None,
        engine=seen.engine,
        path=seen.path,
        status=seen.status,
        finish=finish,
        error=seen.error,
        stream=seen.stream,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_tokens=usage.cached,
        image_tokens=media.get(Modality.IMAGE, 0),
        audio_tokens=media.get(Modality.AUDIO, 0),
        video_tokens=media.get(Modality.VIDEO, 0),
        estimated=estimated,
        queue_seconds=round(seen.queue_seconds, 4) or None,
        first_byte_seconds=None if seen.first_byte is None else round(seen.first_byte - seen.started, 4),
        seconds=round(seconds, 4),
        user=seen.user,
    )


def _traced(seen: Observation, usage: Usage | None, finish: Finish, seconds: float) -> RequestRecord:
    return RequestRecord(
        path=seen.path,
        start=seen.started,
        end=seen.started + seconds,
        request_id=seen.request_id,
        status=seen.status,
        finish=finish,
        error=seen.error,
        stream=seen.stream,
        key=seen.caller.id if seen.caller else None,
        model=seen.route.alias if seen.route else None,
        target=seen.route.target if seen.route else None,
        prompt_tokens=usage.prompt if usage else None,
        completion_tokens=usage.completion if usage else None,
        cached_tokens=usage.cached if usage else None,
        phases=seen.phases,
    )


def _fields(seen: Observation, usage: Usage | None, seconds: float) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": seen.request_id,
        "model": seen.model,
        "key": seen.caller.id if seen.caller else None,
        "engine": seen.engine,
        "seconds": round(seconds, 4),
    }
    if seen.route is not None and seen.route.target != seen.route.alias:
        fields["target"] = seen.route.target
    if seen.replica is not None:
        fields["replica"] = seen.replica
    if seen.trace is not None:
        fields["trace_id"] = seen.trace.id
    if seen.first_byte is not None:
        fields["first_byte_seconds"] = round(seen.first_byte - seen.started, 4)
    if usage is not None:
        fields |= {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}
    if seen.error is not None:
        fields["error"] = seen.error
    if seen.reason is not None:
        fields["reason"] = seen.reason[:_REASON]
    return fields
