"""Traces go on from the client to the engine, and a collector hears what the gateway did meanwhile."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from gateway import tracing
from gateway.errors import ConfigurationError
from gateway.settings import Endpoint, TracingSettings
from gateway.tracing import Exchange, Phase, RequestRecord, Trace, Tracer
from gateway.tracing.context import begin
from gateway.tracing.export import _Faults
from gateway.tracing.record import OPERATIONS
from tests.collector import Collector, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01".encode(), f"00-{TRACE}-{PARENT}-00".encode()
SECRET = "Bearer of-a-secret"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as seen:
        yield seen


@asynccontextmanager
async def tracing_to(endpoint: str, **settings: Any) -> AsyncIterator[Tracer]:
    """A tracer whose spans have been sent when this is left."""
    tracer = Tracer.of(TracingSettings(endpoint=endpoint, **settings))
    assert tracer is not None
    try:
        yield tracer
    finally:
        await tracer.aclose()


def record(**fields: Any) -> RequestRecord:
    sample: dict[str, Any] = {
        "path": "/v1/chat/completions",
        "start": 1000.0,
        "end": 1003.0,
        "request_id": "req-1",
        "status": 200,
        "finish": "complete",
    }
    return RequestRecord(**(sample | fields))


def exchange(**fields: Any) -> Exchange:
    return Exchange(**({"start": 1001.0, "end": 1002.5} | fields))


def attributes(of: Span) -> dict[str, object]:
    return _values(of.attributes)


def _values(pairs: Any) -> dict[str, object]:
    def value(pair: KeyValue) -> object:
        kind = pair.value.WhichOneof("value")
        assert kind is not None
        return getattr(pair.value, kind)

    return {pair.key: value(pair) for pair in pairs}


def header(trace: Trace, number: int = 0) -> str:
    return dict(trace.outgoing(number))[b"traceparent"].decode()


def test_without_endpoint_nothing_traces_and_opentelemetry_is_not_imported() -> None:
    assert Tracer.of(TracingSettings()) is None
    look = (
        "import sys, gateway.app; from gateway.tracing import Tracer, check; from gateway.settings import Settings\n"
        "check(Settings().tracing); print(Tracer.of(Settings().tracing), 'opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["None", "False"], done.stderr


async def test_spans_stand_between_the_clients_span_and_the_engines(collector: Collector) -> None:
    async with tracing_to(collector.url) as tracer:
        trace = tracer.incoming(SAMPLED, None)
        tracer.finish(trace, record(phases=(Phase(name="queue", start=1000.0, end=1000.5), exchange())))
    (server,) = collector.kind(Span.SPAN_KIND_SERVER)
    (client,) = collector.kind(Span.SPAN_KIND_CLIENT)
    (queue,) = collector.kind(Span.SPAN_KIND_INTERNAL)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert client.parent_span_id == queue.parent_span_id == server.span_id
    assert header(trace) == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert len({span.span_id for span in collector.spans}) == 3


async def test_a_request_without_traceparent_begins_a_trace(collector: Collector) -> None:
    async with tracing_to(collector.url) as tracer:
        trace = tracer.incoming(None, b"vendor=1")
        tracer.finish(trace, record())
    (server,) = collector.spans
    assert server.trace_id.hex() == trace.id
    assert server.parent_span_id == b""
    assert re.fullmatch(rf"00-{trace.id}-[0-9a-f]{{16}}-03", header(trace))
    assert dict(trace.outgoing()).keys() == {b"traceparent"}


async def test_the_engine_is_given_what_opentelemetry_and_so_vllm_can_read() -> None:
    trace = begin(1, SAMPLED, b"vendor=1,other=x y")
    carrier = {name.decode(): value.decode() for name, value in trace.outgoing()}
    read = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    assert (read.trace_id, read.span_id) == (trace.trace_id, trace.engine_id)
    assert read.trace_flags.sampled
    assert dict(read.trace_state) == {"vendor": "1", "other": "x y"}


async def test_each_exchange_with_an_engine_is_a_span_of_its_own(collector: Collector) -> None:
    failed = exchange(number=0, error="engine_unavailable", address="http://10.0.0.1:8000")
    answered = exchange(number=1, status=200, address="unix:/run/engine.sock")
    async with tracing_to(collector.url) as tracer:
        trace = tracer.incoming(None, None)
        tracer.finish(trace, record(phases=(failed, answered)))
    first, second = collector.kind(Span.SPAN_KIND_CLIENT)
    assert [header(trace, 0).split("-")[2], header(trace, 1).split("-")[2]] == [
        first.span_id.hex(),
        second.span_id.hex(),
    ]
    assert first.span_id != second.span_id
    assert [first.status.code, second.status.code] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    assert attributes(first)["error.type"] == "engine_unavailable"
    assert (attributes(first)["server.address"], attributes(first)["server.port"]) == ("10.0.0.1", 8000)
    assert attributes(second)["server.address"] == "/run/engine.sock"
    assert attributes(second)["http.response.status_code"] == 200


async def test_spans_have_the_times_of_what_they_stand_for(collector: Collector) -> None:
    now = time.monotonic()
    before = time.time_ns()
    phases = (
        Phase(name="queue", start=now - 3, end=now - 2.5),
        exchange(start=now - 2, end=now - 0.5, first_byte=now - 1.5),
    )
    async with tracing_to(collector.url) as tracer:
        tracer.finish(tracer.incoming(None, None), record(start=now - 3, end=now, phases=phases))
    server, queue, client = collector.spans
    assert abs(server.end_time_unix_nano - before) < 60e9
    assert server.end_time_unix_nano - server.start_time_unix_nano == pytest.approx(3e9, abs=1000)
    assert abs(queue.start_time_unix_nano - server.start_time_unix_nano) < 1000
    assert client.end_time_unix_nano - client.start_time_unix_nano == pytest.approx(1.5e9, abs=1000)
    (event,) = client.events
    assert event.name == "first_token"
    assert event.time_unix_nano - client.start_time_unix_nano == pytest.approx(0.5e9, abs=1000)
    assert attributes(client)["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.5)


async def test_spans_say_what_the_conventions_have_names_for(collector: Collector) -> None:
    asked = exchange(served_name="google/gemma-3-4b-it", engine="small", address="http://engine:8000", status=200)
    told = record(
        stream=True,
        key="a1b2c3d4",
        model="gemma",
        target="gemma-4b",
        prompt_tokens=812,
        completion_tokens=120,
        cached_tokens=0,
        phases=(asked,),
    )
    async with tracing_to(collector.url) as tracer:
        tracer.finish(tracer.incoming(None, None), told)
    server, client = collector.spans
    assert server.name == "POST /v1/chat/completions"
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gemma",
        "gen_ai.response.model": "gemma-4b",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gemma_gateway.request_id": "req-1",
        "gemma_gateway.key": "a1b2c3d4",
        "gemma_gateway.finish": "complete",
    }
    assert client.name == "chat google/gemma-3-4b-it"
    assert attributes(client) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "google/gemma-3-4b-it",
        "server.address": "engine",
        "server.port": 8000,
        "gemma_gateway.engine": "small",
        "gemma_gateway.exchange": 0,
    }


def test_every_inference_route_has_an_operation() -> None:
    assert set(OPERATIONS) == set(Endpoint)


@pytest.mark.parametrize(
    ("fields", "is_error"),
    [
        ({"status": 200, "finish": "complete"}, False),
        ({"status": 429, "finish": "refused", "error": "rate_limit_exceeded"}, False),
        ({"status": 499, "finish": "aborted"}, False),
        ({"status": 503, "finish": "failed", "error": "engine_unavailable"}, True),
        ({"status": 200, "finish": "failed", "error": "engine_failed"}, True),
    ],
)
async def test_only_what_is_no_fault_of_the_client_is_an_error(
    collector: Collector, fields: dict[str, Any], is_error: bool
) -> None:
    async with tracing_to(collector.url) as tracer:
        tracer.finish(tracer.incoming(None, None), record(**fields))
    (server,) = collector.spans
    assert server.status.code == (Status.STATUS_CODE_ERROR if is_error else Status.STATUS_CODE_UNSET)
    assert attributes(server).get("error.type") == fields.get("error")


async def test_whom_the_client_does_not_sample_the_engine_hears_of_and_nobody_else(collector: Collector) -> None:
    async with tracing_to(collector.url) as tracer:
        trace = tracer.incoming(UNSAMPLED, b"vendor=1")
        tracer.finish(trace, record(phases=(exchange(),)))
    assert trace.outgoing() == trace.outgoing(1) == [(b"traceparent", UNSAMPLED), (b"tracestate", b"vendor=1")]
    assert collector.requests == []


async def test_the_ratio_decides_where_the_client_does_not(collector: Collector) -> None:
    async with tracing_to(collector.url, sample_ratio=0) as tracer:
        alone, sampled = tracer.incoming(None, None), tracer.incoming(SAMPLED, None)
        for trace in (alone, sampled):
            tracer.finish(trace, record())
    assert header(alone).endswith("-02")
    assert [span.trace_id.hex() for span in collector.spans] == [TRACE]


@pytest.mark.parametrize(("ratio", "least", "most"), [(0, 0, 0), (0.25, 150, 350), (1, 1000, 1000)])
def test_the_ratio_is_the_share_of_new_traces(ratio: float, least: int, most: int) -> None:
    assert least <= sum(begin(ratio, None, None).sampled for _ in range(1000)) <= most


MALFORMED = [
    b"",
    b"00",
    f"00-{TRACE}-{PARENT}".encode(),
    f"00-{TRACE}-{PARENT}-1".encode(),
    f"00-{TRACE}-{PARENT}-01-more".encode(),
    f"00-{TRACE}-{PARENT}-01 ".encode(),
    f"00-{TRACE}-{PARENT}-01\n".encode(),
    f"ff-{TRACE}-{PARENT}-01".encode(),
    f"00-{TRACE.upper()}-{PARENT}-01".encode(),
    f"00-{'0' * 32}-{PARENT}-01".encode(),
    f"00-{TRACE}-{'0' * 16}-01".encode(),
    f"00-{TRACE[:-1]}g-{PARENT}-01".encode(),
    b"\xff" * 55,
]


@pytest.mark.parametrize("traceparent", MALFORMED)
def test_a_malformed_traceparent_counts_as_none_and_its_tracestate_with_it(traceparent: bytes) -> None:
    trace = begin(1, traceparent, b"vendor=1")
    assert trace.id != TRACE
    assert trace.parent_id is None
    assert [name for name, _ in trace.outgoing()] == [b"traceparent"]


@pytest.mark.parametrize("more", ["", "-what-a-later-version-has"])
def test_a_later_version_is_read_as_far_as_it_is_known(more: str) -> None:
    trace = begin(0, f"cc-{TRACE}-{PARENT}-ff{more}".encode(), None)
    assert (trace.id, trace.parent_id, trace.sampled) == (TRACE, int(PARENT, 16), True)
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-03", header(trace))


@pytest.mark.parametrize(
    "state", [b"a=1", b"rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", b"t@v=x y!,,b=2", b"a=" + b"v" * 256]
)
async def test_a_tracestate_is_passed_on_as_it_came_and_told_to_the_collector(
    collector: Collector, state: bytes
) -> None:
    async with tracing_to(collector.url) as tracer:
        trace = tracer.incoming(SAMPLED, state)
        tracer.finish(trace, record(phases=(exchange(),)))
    assert dict(trace.outgoing())[b"tracestate"] == state
    members = [member.strip() for member in state.decode().split(",") if member]
    assert [span.trace_state.split(",") for span in collector.spans] == [members] * 2


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b" ",
        b",",
        b"novalue",
        b"A=upper",
        b"1=digit",
        b"a=\xff",
        b"a=1\r\nx: y",
        b"a=b=c",
        b"a= ",
        b"=1",
        b"a=1," * 33,
        b"a=" + b"v" * 257,
    ],
)
def test_a_malformed_tracestate_is_dropped_and_the_trace_goes_on(state: bytes) -> None:
    trace = begin(1, SAMPLED, state)
    assert trace.id == TRACE
    assert [name for name, _ in trace.outgoing()] == [b"traceparent"]


async def test_the_collector_is_told_who_sends(collector: Collector) -> None:
    headers = {"authorization": SECRET}
    async with tracing_to(collector.url, headers=headers, service_name="edge") as tracer:
        tracer.finish(tracer.incoming(None, None), record())
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["authorization"] == SECRET
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    resource = _values(collector.requests[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "edge"
    assert resource["service.version"]
    assert resource["service.instance.id"]


async def test_spans_are_sent_while_the_gateway_runs(collector: Collector) -> None:
    async with tracing_to(collector.url) as tracer:
        tracer.finish(tracer.incoming(None, None), record())
        await until(lambda: bool(collector.spans))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, in which no earlier fault keeps a new one quiet."""
    library = logging.getLogger("opentelemetry")
    kept = [handler for handler in library.handlers if isinstance(handler, _Faults)]
    for handler in kept:
        library.removeHandler(handler)
    yield caplog


async def test_a_collector_that_is_down_harms_nobody_and_is_told_of_once(
    faults: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    headers = {"authorization": SECRET}
    endpoint = f"http://127.0.0.1:{unused_tcp_port}"
    async with asyncio.timeout(10), tracing_to(endpoint, headers=headers, timeout_seconds=0.3) as tracer:
        for _ in range(3000):
            tracer.finish(tracer.incoming(None, None), record(phases=(exchange(),)))
        await until(lambda: "traces: " in faults.text)
    assert faults.text.count("traces: ") == 1
    assert SECRET not in faults.text


async def test_a_collector_that_refuses_is_told_of_with_its_reason(
    collector: Collector, faults: pytest.LogCaptureFixture
) -> None:
    collector.status = 401
    async with tracing_to(collector.url) as tracer:
        tracer.finish(tracer.incoming(None, None), record())
    assert "401" in faults.text
    assert len(collector.requests) == 1


async def test_a_collector_that_hangs_does_not_hold_up_the_end(faults: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5), tracing_to(f"http://127.0.0.1:{port}", timeout_seconds=0.5) as tracer:
            for _ in range(1500):
                tracer.finish(tracer.incoming(None, None), record())
        release.set()
    assert "did not take the last spans within 0.5 s" in faults.text


async def test_spans_that_come_after_the_end_are_dropped_in_silence(collector: Collector) -> None:
    async with tracing_to(collector.url) as tracer:
        pass
    tracer.finish(tracer.incoming(None, None), record())
    assert collector.requests == []


def test_without_the_extra_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.tracing.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    settings = TracingSettings(endpoint="http://collector:4318")
    for call in (tracing.check, Tracer.of):
        with pytest.raises(ConfigurationError, match=r"pip install 'gemma-gateway\[tracing\]'"):
            call(settings)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ("https://cloud.example.com/otlp", "https://cloud.example.com/otlp/v1/traces"),
    ],
)
def test_an_endpoint_may_be_written_with_or_without_the_path(written: str, meant: str) -> None:
    assert TracingSettings(endpoint=written).endpoint == meant


@pytest.mark.parametrize(
    "endpoint",
    ["", "collector:4318", "grpc://collector:4317", "http://", "http://me:secret@collector", "http://c/?key=1"],
)
def test_an_endpoint_that_cannot_be_meant_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="must be http://host:port or https://host:port"):
        TracingSettings(endpoint=endpoint)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValidationError):
        TracingSettings(sample_ratio=ratio)


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"x": ""}, {"x": " y"}, {"x": "y\r\nz: 1"}, {"x": "é"}])
def test_a_header_that_cannot_be_sent_is_refused_when_the_configuration_is_read(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TracingSettings(headers=headers)


def test_headers_are_not_shown() -> None:
    assert SECRET not in repr(TracingSettings(headers={"authorization": SECRET}))
