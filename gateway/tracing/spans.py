"""Makes OpenTelemetry's spans of a request that has ended.

They are made whole, by ReadableSpan itself: a live span of the SDK with its locks and limits takes ten times as long,
and no attribute of ours is ever added later. Names and attributes follow the semantic conventions for HTTP and GenAI.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.tracing.context import Trace
from gateway.tracing.record import OPERATIONS, Exchange, Phase, RequestRecord

_SCOPE = InstrumentationScope("gateway")
_UNSET, _ERROR = Status(), Status(StatusCode.ERROR)

Attributes = dict[str, str | bool | int | float]


def spans(trace: Trace, record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    """The request's own span, then those of its phases, which are its children."""
    maker = _Maker(trace, record, resource)
    yield maker.request()
    for number, phase in enumerate(record.phases):
        yield maker.exchange(phase) if isinstance(phase, Exchange) else maker.phase(phase, number)


class _Maker:
    def __init__(self, trace: Trace, record: RequestRecord, resource: Resource) -> None:
        self._trace = trace
        self._record = record
        self._resource = resource
        self._flags = TraceFlags(trace.flags)
        self._state = _state(trace.tracestate)
        self._own = self._context(trace.span_id)
        # Taken now: the clock of the day may have been set since the gateway started.
        self._epoch = time.time_ns() - time.monotonic_ns()

    def request(self) -> ReadableSpan:
        record, trace = self._record, self._trace
        parent = None if trace.parent_id is None else self._context(trace.parent_id, remote=True)
        failed = record.status >= 500 or record.finish == "failed"
        return ReadableSpan(
            f"{record.method} {record.path}",
            context=self._own,
            parent=parent,
            resource=self._resource,
            attributes=_of_request(record),
            kind=SpanKind.SERVER,
            status=_ERROR if failed else _UNSET,
            start_time=self._time(record.start),
            end_time=self._time(record.end),
            instrumentation_scope=_SCOPE,
        )

    def exchange(self, exchange: Exchange) -> ReadableSpan:
        seen = exchange.first_byte
        return ReadableSpan(
            _exchange_name(self._record, exchange),
            context=self._context(self._trace.exchange_id(exchange.number)),
            parent=self._own,
            resource=self._resource,
            attributes=_of_exchange(self._record, exchange),
            events=() if seen is None else (Event("first_token", timestamp=self._time(seen)),),
            kind=SpanKind.CLIENT,
            status=_UNSET if exchange.error is None else _ERROR,
            start_time=self._time(exchange.start),
            end_time=self._time(exchange.end),
            instrumentation_scope=_SCOPE,
        )

    def phase(self, phase: Phase, number: int) -> ReadableSpan:
        return ReadableSpan(
            phase.name,
            context=self._context(self._phase_id(number)),
            parent=self._own,
            resource=self._resource,
            attributes=_filled({"error.type": phase.error}),
            kind=SpanKind.INTERNAL,
            status=_UNSET if phase.error is None else _ERROR,
            start_time=self._time(phase.start),
            end_time=self._time(phase.end),
            instrumentation_scope=_SCOPE,
        )

    def _phase_id(self, number: int) -> int:
        """As random as the request's own, from which it is told apart by its last bits; never 0."""
        return (self._trace.span_id + number) % (2**64 - 1) + 1

    def _context(self, span_id: int, remote: bool = False) -> SpanContext:
        return SpanContext(self._trace.trace_id, span_id, remote, self._flags, self._state)

    def _time(self, monotonic: float) -> int:
        """Nanoseconds since 1970."""
        return int(monotonic * 1e9) + self._epoch


def _of_request(record: RequestRecord) -> Attributes:
    return _filled(
        {
            "http.request.method": record.method,
            "http.route": record.path,
            "url.path": record.path,
            "http.response.status_code": record.status,
            "error.type": record.error,
            "gen_ai.operation.name": OPERATIONS.get(record.path),
            "gen_ai.request.model": record.model,
            "gen_ai.response.model": record.target,
            "gen_ai.request.stream": record.stream,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gemma_gateway.request_id": record.request_id,
            "gemma_gateway.key": record.key,
            "gemma_gateway.finish": record.finish,
        }
    )


def _of_exchange(record: RequestRecord, exchange: Exchange) -> Attributes:
    host, port = _server(exchange.address)
    seen = exchange.first_byte
    return _filled(
        {
            "gen_ai.operation.name": OPERATIONS.get(record.path),
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": exchange.served_name,
            "gen_ai.response.time_to_first_chunk": None if seen is None else seen - exchange.start,
            "http.request.method": "POST",
            "http.response.status_code": exchange.status,
            "server.address": host,
            "server.port": port,
            "error.type": exchange.error,
            "gemma_gateway.engine": exchange.engine,
            "gemma_gateway.exchange": exchange.number,
        }
    )


def _exchange_name(record: RequestRecord, exchange: Exchange) -> str:
    operation = OPERATIONS.get(record.path) or exchange.name
    return operation if exchange.served_name is None else f"{operation} {exchange.served_name}"


def _filled(attributes: dict[str, str | bool | int | float | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


@lru_cache(1024)
def _server(url: str | None) -> tuple[str | None, int | None]:
    """Host and port of an engine's URL; of a Unix socket its path."""
    if url is None:
        return None, None
    parts = urlsplit(url)
    return parts.hostname or parts.path, parts.port


def _state(tracestate: bytes | None) -> TraceState | None:
    return None if tracestate is None else TraceState.from_header([tracestate.decode("ascii")])
