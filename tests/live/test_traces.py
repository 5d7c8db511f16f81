"""A request's trace runs from its client through the gateway to the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fake_engine
from tests.collector import Collector, collecting
from tests.fake_engine import reply
from tests.live.conftest import MESSAGES, Start

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CLIENT}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as seen:
        yield seen


async def test_spans_of_a_request_hang_between_its_clients_and_its_engines(start: Start, collector: Collector) -> None:
    gateway = await start(tracing={"endpoint": f"{collector.url}/v1/traces"})

    answer = await gateway.client.post(
        "/v1/chat/completions",
        json={"model": "gemma", "messages": MESSAGES, "stream": True},
        headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"},
    )

    assert answer.status_code == 200
    sent = gateway.engine.requests[0].headers
    _, trace, parent, flags = sent["traceparent"].split("-")
    assert (trace, flags, sent["tracestate"]) == (TRACE, "01", "vendor=1")
    await gateway.until(lambda: len(collector.spans) >= 2, 10)
    own, exchange = sorted(collector.spans, key=lambda span: span.parent_span_id.hex() != CLIENT)
    assert own.parent_span_id.hex() == CLIENT
    assert exchange.parent_span_id == own.span_id
    assert exchange.span_id.hex() == parent
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    attributes = {pair.key: pair.value for pair in own.attributes}
    assert attributes["gen_ai.request.model"].string_value == "gemma"
    assert attributes["gen_ai.usage.output_tokens"].int_value == fake_engine.USAGE["completion_tokens"]
    assert own.start_time_unix_nano <= exchange.start_time_unix_nano <= exchange.end_time_unix_nano


async def test_a_fallback_is_an_exchange_of_its_own(start: Start, collector: Collector) -> None:
    gateway = await start(
        tracing={"endpoint": f"{collector.url}/v1/traces"},
        engines={"other": {}},
        models={"gemma": {"fallbacks": ["second"]}, "second": {"engine": "other"}},
    )
    gateway.engine.behaviour = reply(b"", status=503)

    assert (await gateway.chat()).status_code == 200

    parents = [engine.requests[0].headers["traceparent"].split("-")[2] for engine in gateway.engines.values()]
    await gateway.until(lambda: len(collector.spans) >= 3, 10)
    spans = {span.span_id.hex(): span for span in collector.spans}
    assert len(set(parents)) == 2
    assert all(parent in spans for parent in parents)


async def test_without_a_collector_the_clients_trace_goes_on_as_it_came(start: Start) -> None:
    gateway = await start()

    await gateway.client.post(
        "/v1/chat/completions",
        json={"model": "gemma", "messages": MESSAGES},
        headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"},
    )
    await gateway.chat()

    with_trace, without = (request.headers for request in gateway.engine.requests)
    assert (with_trace["traceparent"], with_trace["tracestate"]) == (TRACEPARENT, "vendor=1")
    assert "traceparent" not in without
