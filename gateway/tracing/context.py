"""The W3C trace context: what a client's `traceparent` and `tracestate` say, and what the engine is sent."""

from __future__ import annotations

import os
import re

import msgspec

#: Version 00 has these four fields; a later one may have more, which are not for us.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: OpenTelemetry's SDK, and so vLLM's, takes no other keys.
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_TRACESTATE_MEMBER = re.compile(_KEY + rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_MEMBERS = 32

#: Flags: the trace is recorded; its id's lower seven bytes are random.
_SAMPLED, _RANDOM = 1, 2
_HALF = 1 << 64


class Trace(msgspec.Struct, frozen=True, gc=False):
    """The place of one request in a trace. Ids are as OpenTelemetry has them: integers of 128 and 64 bits.

    `parent_id` is the client's span, if it has one; `span_id` is the request's own, `engine_id` that of its first
    exchange with an engine. Where the request is not sampled, none of ours is made and only the header is left of it.
    """

    trace_id: int
    span_id: int
    engine_id: int
    flags: int
    parent_id: int | None = None
    tracestate: bytes | None = None

    @property
    def sampled(self) -> bool:
        """Whether spans are made of the request. If not, nobody needs to keep a record of it."""
        return bool(self.flags & _SAMPLED)

    @property
    def id(self) -> str:
        """The trace's id as people look for it."""
        return f"{self.trace_id:032x}"

    def outgoing(self, number: int = 0) -> list[tuple[bytes, bytes]]:
        """The headers for an exchange with an engine, the first of which has the number 0."""
        span_id = self.exchange_id(number) if self.sampled else self.engine_id
        headers = [(b"traceparent", b"00-%032x-%016x-%02x" % (self.trace_id, span_id, self.flags))]
        if self.tracestate is not None:
            headers.append((b"tracestate", self.tracestate))
        return headers

    def exchange_id(self, number: int) -> int:
        """Id of the span of an exchange with an engine."""
        return self.engine_id + number


def begin(ratio: float, traceparent: bytes | None, tracestate: bytes | None) -> Trace:
    """The trace that a request belongs to: the client's, which then says whether it is sampled, or a new one.

    A `traceparent` that is not well-formed counts as none, and so does the `tracestate` with it.
    """
    parent = _parse(traceparent) if traceparent is not None else None
    if parent is None:
        return _new(ratio)
    trace_id, parent_id, flags = parent
    state = tracestate if tracestate is not None and _is_good(tracestate) else None
    if flags & _SAMPLED:
        own, engine = _span_ids()
    else:
        # Who makes no spans passes the parent on.
        own = engine = parent_id
    return Trace(trace_id, own, engine, flags & (_SAMPLED | _RANDOM), parent_id, state)


def _new(ratio: float) -> Trace:
    """The lower half of the id decides, so that whoever has the same ratio decides alike."""
    trace_id = int.from_bytes(os.urandom(16), "big") or 1
    sampled = trace_id % _HALF < ratio * _HALF
    return Trace(trace_id, *_span_ids(), _RANDOM | (_SAMPLED if sampled else 0))


def _span_ids() -> tuple[int, int]:
    """Two random ids; from the second on many follow that are unused."""
    both = os.urandom(16)
    return int.from_bytes(both[:8], "big") or 1, int.from_bytes(both[8:], "big") >> 1 or 1


def _parse(header: bytes) -> tuple[int, int, int] | None:
    """Trace, span and flags; None where the header is not well-formed."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    return (trace_id, span_id, int(flags, 16)) if trace_id and span_id else None


def _is_good(tracestate: bytes) -> bool:
    members = [member.strip(b" \t") for member in tracestate.split(b",")]
    filled = [member for member in members if member]
    return 0 < len(filled) <= _MOST_MEMBERS and all(map(_TRACESTATE_MEMBER.fullmatch, filled))
