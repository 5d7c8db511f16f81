"""What a request used, told at its end: to its quotas, the metrics, the usage log and the access log."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime

from gateway.access.callers import Caller
from gateway.access.quota import Entry
from gateway.api.estimate import NOTHING
from gateway.api.observation import UNKNOWN, Observation
from gateway.logs.access import REASON, AccessLog, AccessRecord
from gateway.metrics import Metrics
from gateway.settings import Modality
from gateway.tracing import RequestRecord, Tracer
from gateway.upstream.sse import Usage
from gateway.usage_log import Finish, UsageLog, UsageRecord

#: Seconds that what has ended may be in arrears in metrics and logs.
PERIOD = 0.05

#: Records that are written in one go: a request that comes meanwhile waits for no more than these.
AT_ONCE = 8

#: Tokens that an engine generates in a second for one request, at most.
_FASTEST = 300

#: What keys are counted as that came after too many others, and requests without one.
OTHER, NOBODY = "other", "none"

_NO_USAGE = Usage()


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


class Accounting:
    """Where the record of a request goes: to its quotas at once, and elsewhere, with others', within PERIOD."""

    def __init__(
        self,
        metrics: Metrics,
        labels: KeyLabels,
        usage_log: UsageLog | None,
        tracer: Tracer | None,
        access_log: AccessLog,
    ) -> None:
        self._metrics = metrics
        self._labels = labels
        self._usage_log = usage_log
        self._tracer = tracer
        self._access_log = access_log
        self._ended: list[Observation] = []
        self._due = False

    def close(self, seen: Observation) -> None:
        """Settles a request that has ended, and has it counted and logged."""
        seen.seconds = time.monotonic() - seen.started
        if seen.usage is None and _generated(seen):
            seen.usage = _guess(seen)
            seen.estimated = True
        if seen.entry is not None:
            _settle(seen.entry, seen, seen.usage)
        if not self._ended:
            self._metrics.arrears.add(self.flush)
        self._ended.append(seen)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(PERIOD, self._catch_up)

    def while_waiting(self) -> None:
        """Has a portion written, if a whole one is there, once the request at hand is sent: until the engine answers
        nobody waits for it.
        """
        if len(self._ended) >= AT_ONCE:
            asyncio.get_running_loop().call_soon(self._portion)

    def flush(self) -> None:
        """Counts and logs all that has ended."""
        ended, self._ended = self._ended, []
        self._write(ended)

    def _catch_up(self) -> None:
        self._portion()
        self._due = bool(self._ended)
        if self._due:
            asyncio.get_running_loop().call_soon(self._catch_up)

    def _portion(self) -> None:
        ended, self._ended = self._ended[:AT_ONCE], self._ended[AT_ONCE:]
        self._write(ended)

    def _write(self, ended: list[Observation]) -> None:
        """Several at a time take half as long as one after the other."""
        finishes = [_finish(seen) for seen in ended]
        for seen, finish in zip(ended, finishes, strict=True):
            self._count(seen, finish)
        if self._usage_log is not None:
            since = time.time() - time.monotonic()
            for seen, finish in zip(ended, finishes, strict=True):
                self._usage_log.write(_record(seen, finish, since))
        if self._tracer is not None:
            for seen, finish in zip(ended, finishes, strict=True):
                if seen.trace is not None and seen.trace.sampled:
                    self._tracer.finish(seen.trace, _traced(seen, finish))
        if self._access_log.on and ended:
            since = time.time() - time.monotonic()
            self._access_log.write([_accessed(seen, since) for seen in ended])

    def _count(self, seen: Observation, finish: Finish) -> None:
        metrics, usage, route = self._metrics, seen.usage, seen.route
        path, model, key = seen.path, UNKNOWN if route is None else route.alias, self._labels.of(seen.caller)
        metrics.requests.series[path, model, str(seen.status)] += 1
        metrics.key_requests.series[key, finish] += 1
        metrics.duration.observe((path, model), seen.seconds)
        if seen.first_byte is not None:
            wait, events = seen.first_byte - seen.started, seen.events
            metrics.first_byte.observe((path, model, "yes" if events else "no"), wait)
            if events > 1:
                metrics.token_seconds.observe((path, model), (seen.seconds - wait) / (events - 1))
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


def _record(seen: Observation, finish: Finish, since: float) -> UsageRecord:
    """`since` is Unix time when the monotonic clock was 0."""
    usage, caller, route = seen.usage or _NO_USAGE, seen.caller, seen.route
    media = seen.media_tokens or {}
    return UsageRecord(
        time=datetime.fromtimestamp(since + seen.started + seen.seconds, UTC),
        request_id=seen.request_id,
        key=caller.id if caller else None,
        key_name=caller.name if caller else None,
        model=route.alias if route else None,
        target=route.target if route else None,
        engine=route.engine if route else None,
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
        estimated=seen.estimated,
        queue_seconds=round(seen.queue_seconds, 4) or None,
        first_byte_seconds=None if seen.first_byte is None else round(seen.first_byte - seen.started, 4),
        seconds=round(seen.seconds, 4),
        user=seen.user,
    )


def _accessed(seen: Observation, since: float) -> AccessRecord:
    usage, route = seen.usage, seen.route
    return AccessRecord(
        at=since + seen.started + seen.seconds,
        method=seen.method,
        path=seen.path,
        status=seen.status,
        request_id=seen.request_id,
        model=UNKNOWN if route is None else route.alias,
        key=seen.caller.id if seen.caller else None,
        engine=route.engine if route else None,
        seconds=round(seen.seconds, 4),
        target=route.target if route is not None and route.target != route.alias else None,
        replica=seen.replica,
        trace_id=seen.trace.id if seen.trace else None,
        first_byte_seconds=None if seen.first_byte is None else round(seen.first_byte - seen.started, 4),
        prompt_tokens=usage.prompt if usage else None,
        completion_tokens=usage.completion if usage else None,
        error=seen.error,
        reason=None if seen.reason is None else seen.reason[:REASON],
    )


def _traced(seen: Observation, finish: Finish) -> RequestRecord:
    usage, caller, route = seen.usage, seen.caller, seen.route
    return RequestRecord(
        path=seen.path,
        start=seen.started,
        end=seen.started + seen.seconds,
        request_id=seen.request_id,
        status=seen.status,
        finish=finish,
        error=seen.error,
        stream=seen.stream,
        key=caller.id if caller else None,
        model=route.alias if route else None,
        target=route.target if route else None,
        prompt_tokens=usage.prompt if usage else None,
        completion_tokens=usage.completion if usage else None,
        cached_tokens=usage.cached if usage else None,
        phases=seen.phases,
    )
