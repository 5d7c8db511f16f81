"""Whatever an engine or a client does, the client hears the truth and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.fake_engine import Behaviour, Received, abort, begin, event, reply, send
from tests.live.conftest import MESSAGES, Start

Writer = asyncio.StreamWriter


async def hang(_: Received, writer: Writer) -> None:
    await asyncio.sleep(30)


async def hang_up(_: Received, writer: Writer) -> None:
    abort(writer)


async def garbage(_: Received, writer: Writer) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await writer.drain()


async def half_head(_: Received, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await writer.drain()
    abort(writer)


async def half_json(_: Received, writer: Writer) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id"')
    await writer.drain()
    await asyncio.sleep(0.02)
    abort(writer)


async def not_found(request: Received, writer: Writer) -> None:
    await reply(b'{"detail":"Not Found"}', 404)(request, writer)


@dataclass(frozen=True)
class Fault:
    """What the engine does, and what the client must see."""

    behaviour: Behaviour
    status: int
    code: str | None
    retry_after: str | None = None
    calls: int = 1


FAULTS = {
    "is full": Fault(reply(b'{"error":{"message":"busy"}}', 503), 503, "overloaded", "2"),
    "is shutting down": Fault(
        reply(b'{"error":{"message":"cannot schedule new futures after shutdown"}}', 500),
        503,
        "engine_unavailable",
        "2",
    ),
    "is warming up": Fault(
        reply(b'{"error":{"message":"x","code":"engine_unavailable"}}', 503), 503, "engine_unavailable", "2"
    ),
    "lacks the route": Fault(not_found, 404, "not_found"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_fault_before_the_first_byte_is_a_clear_error(start: Start, fault: Fault) -> None:
    gateway = await start(engines={"default": {"first_byte_seconds": 0.3}})
    gateway.engine.behaviour = fault.behaviour

    response = await gateway.chat()

    error = response.json()["error"]
    assert response.status_code == fault.status
    assert error["code"] == fault.code
    assert "secret" not in response.text
    assert response.headers.get("retry-after") == fault.retry_after
    assert len(gateway.engine.requests) == fault.calls
    await gateway.idle()


OWN_WORDS = [
    b'{"error":{"message":"too large","type":"BadRequestError","param":"max_tokens","code":400}}',
    b'{"error":{"message":"too large","type":"Bad Request","param":"body.max_tokens","code":400}}',
    b'{"type":"error","error":{"type":"BadRequestError","message":"too large","param":"max_tokens"}}',
]


@pytest.mark.parametrize("refusal", OWN_WORDS)
async def test_engines_own_refusal_passes_in_openais_shape(start: Start, refusal: bytes) -> None:
    gateway = await start()
    gateway.engine.behaviour = reply(refusal, 400)

    response = await gateway.chat()

    assert response.status_code == 400
    assert response.json() == {
        "error": {"message": "too large", "type": "invalid_request_error", "param": "max_tokens", "code": None}
    }


@pytest.mark.parametrize("refusal", OWN_WORDS)
async def test_engines_own_refusal_passes_in_anthropics_shape(start: Start, refusal: bytes) -> None:
    gateway = await start()
    gateway.engine.behaviour = reply(refusal, 400)

    response = await gateway.client.post("/v1/messages", json={"model": "gemma", "messages": MESSAGES})

    assert response.status_code == 400
    assert response.json() == {"type": "error", "error": {"type": "invalid_request_error", "message": "too large"}}


async def test_engine_that_comes_back_serves_again_however_long_it_was_away(start: Start) -> None:
    """By then the pauses between looks are longer than a request may wait: the request itself makes one."""
    gateway = await start(engines={"default": {"hold": {"seconds": 2}}})
    gateway.engine.die()
    await gateway.chat()

    await gateway.engine.start(gateway.engine.port)

    assert (await gateway.chat()).status_code == 200


def broken_stream(end: Callable[[Writer], None] | None, tail: bytes = b"") -> Behaviour:
    async def behave(_: Received, writer: Writer) -> None:
        await begin(writer)
        await send(writer, event("a") + tail)
        await asyncio.sleep(0.05)
        if end is None:
            await asyncio.sleep(30)
        else:
            end(writer)

    return behave


BROKEN = {
    "reset": (broken_stream(abort), "engine_failed"),
    "reset inside an event": (broken_stream(abort, b'data: {"id":"half'), "engine_failed"),
    "closed without the end": (broken_stream(lambda writer: writer.close()), "engine_failed"),
    "silent": (broken_stream(None), "engine_timeout"),
}


@pytest.mark.parametrize(("behaviour", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_stream_that_breaks_ends_in_an_error_event_and_not_in_done(
    start: Start, behaviour: Behaviour, code: str
) -> None:
    gateway = await start(engines={"default": {"idle_seconds": 0.3}})
    gateway.engine.behaviour = behaviour

    response = await gateway.chat(stream=True)

    first, last, rest = response.text.split("\n\n")
    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["content"] == "a"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert rest == ""
    assert gateway.metric("gemma_gateway_stream_errors_total", model="gemma") == 1
    await gateway.idle()


def failing_stream(failure: bytes) -> Behaviour:
    """As vLLM fails in mid-stream: an error event, and then `[DONE]` all the same."""

    async def fail(_: Received, writer: Writer) -> None:
        await begin(writer)
        await send(writer, event("a"))
        await send(writer, event("b") + failure + b"data: [DONE]\n\n")
        await send(writer, b"")

    return fail


async def test_engines_own_error_event_is_replaced_and_the_done_after_it_withheld(start: Start) -> None:
    gateway = await start()
    failure = b'data: {"error": {"message": "secret", "type": "InternalServerError", "param": null, "code": 500}}\n\n'
    gateway.engine.behaviour = failing_stream(failure)

    response = await gateway.chat(stream=True)

    start_of_error = len(event("a") + event("b"))
    assert response.content[:start_of_error] == event("a") + event("b")
    error = json.loads(response.content[start_of_error:].removeprefix(b"data: "))["error"]
    assert (error["code"], "secret" in response.text) == ("engine_failed", False)
    await gateway.idle()


async def test_engines_error_event_about_the_request_passes_without_the_done(start: Start) -> None:
    gateway = await start()
    failure = b'data: {"error": {"message": "too long", "type": "BadRequestError", "param": "n", "code": 400}}\n\n'
    gateway.engine.behaviour = failing_stream(failure)

    response = await gateway.chat(stream=True)

    assert response.content == event("a") + event("b") + failure
    await gateway.idle()


@pytest.mark.parametrize(
    ("path", "event_name", "kind"), [("/v1/messages", "error", "api_error"), ("/v1/responses", "error", None)]
)
async def test_error_event_speaks_the_routes_own_dialect(
    start: Start, path: str, event_name: str, kind: str | None
) -> None:
    gateway = await start()
    gateway.engine.behaviour = broken_stream(abort)

    response = await gateway.client.post(path, json={"model": "gemma", "stream": True})

    name, document = response.text.strip().split("\n\n")[-1].split("\n")
    error = json.loads(document.removeprefix("data: "))
    assert name == f"event: {event_name}"
    assert error["type"] == "error"
    assert error.get("error", {}).get("type") == kind


async def test_fault_of_our_own_in_mid_stream_is_an_error_event_too(start: Start) -> None:
    gateway = await start()
    unreadable = b'data: {"usage":{},"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n\n"
    gateway.engine.behaviour = broken_stream(abort, unreadable)

    response = await gateway.chat(stream=True)

    assert json.loads(response.text.removeprefix("data: "))["error"]["message"] == "The server had an internal error."
    await gateway.idle()


async def test_silence_limit_of_one_request_does_not_outlive_it(start: Start) -> None:
    gateway = await start(engines={"default": {"idle_seconds": 0.3}})
    normal = gateway.engine.behaviour

    async def late(request: Received, writer: Writer) -> None:
        await asyncio.sleep(0.6)
        await normal(request, writer)

    await gateway.chat()
    gateway.engine.behaviour = late

    response = await gateway.chat()

    assert response.status_code == 200


async def test_stale_connection_is_replaced_without_the_client_noticing(start: Start) -> None:
    gateway = await start()
    await gateway.chat()
    normal = gateway.engine.behaviour
    calls = 0

    async def hang_up_once(request: Received, writer: Writer) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            abort(writer)
        else:
            await normal(request, writer)

    gateway.engine.behaviour = hang_up_once

    response = await gateway.chat()

    assert (response.status_code, calls) == (200, 2)


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_while_waiting_stops_the_engine(start: Start, stream: bool) -> None:
    gateway = await start()
    gateway.engine.behaviour = hang
    request = asyncio.create_task(gateway.chat(stream=stream))
    async with asyncio.timeout(2):
        while not gateway.engine.running:
            await asyncio.sleep(0.01)

    request.cancel()

    await gateway.idle()
    labels = {"path": "/v1/chat/completions", "model": "gemma", "status": "499"}
    assert gateway.metric("gemma_gateway_requests_total", **labels) == 1


async def test_client_that_leaves_in_mid_stream_stops_the_engine(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = broken_stream(None)
    body = {"model": "gemma", "messages": MESSAGES, "stream": True}

    async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as response:
        await anext(response.aiter_bytes())

    await gateway.idle()


async def test_slow_reader_stops_the_reading_from_the_engine(start: Start) -> None:
    gateway = await start()
    sent = 0

    async def flood(_: Received, writer: Writer) -> None:
        nonlocal sent
        await begin(writer)
        while True:
            await send(writer, event("x" * 100_000))
            sent += 100_000

    gateway.engine.behaviour = flood
    body = json.dumps({"model": "gemma", "stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]), limit=1024)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.read(100)
    await asyncio.sleep(0.5)
    before = sent
    await asyncio.sleep(0.3)

    # What is under way sits in the kernel's socket buffers, which hold a few MB on loopback.
    assert sent == before
    assert sent < 50_000_000
    writer.close()
    await gateway.idle()


REFUSALS = [
    ("POST", "/v1/chat/completions", b"not json", 400, None),
    ("POST", "/v1/chat/completions", b"[1]", 400, None),
    ("POST", "/v1/chat/completions", b"{}", 400, None),
    ("POST", "/v1/chat/completions", b'{"model": 5}', 400, None),
    ("POST", "/v1/chat/completions", b'{"model": "gemma", "stream": "yes"}', 400, None),
    ("POST", "/v1/chat/completions", b'{"model": "other"}', 404, "model_not_found"),
    ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
    ("POST", "/v1/models", b"", 405, "method_not_allowed"),
    ("GET", "/v1/models/other", b"", 404, "model_not_found"),
    ("GET", "/metrics", b"", 404, "not_found"),
    ("POST", "/invocations", b"{}", 404, "not_found"),
    ("POST", "/v1/chat/completions/", b"{}", 404, "not_found"),
    ("POST", "//v1/chat/completions", b"{}", 404, "not_found"),
    ("POST", "/v1/load_lora_adapter", b"{}", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REFUSALS)
async def test_bad_request_is_refused_in_openais_shape_without_troubling_the_engine(
    start: Start, method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    gateway = await start()

    response = await gateway.client.request(method, f"{gateway.url}{path}", content=body)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert "x-request-id" in response.headers
    assert gateway.engine.requests == []


@pytest.mark.parametrize("field", ["model", "user", "priority"])
async def test_byte_that_is_no_text_is_a_400_that_names_the_field(start: Start, field: str) -> None:
    gateway = await start()

    fields = {"model": b'"gemma"', "messages": b"[]", field: b'"\xff"'}
    body = b"{" + b",".join(b'"%b": %b' % (name.encode(), value) for name, value in fields.items()) + b"}"
    answer = await gateway.client.post("/v1/chat/completions", content=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_body_over_the_limit_is_a_413_told_or_not(start: Start) -> None:
    gateway = await start(server={"max_body_bytes": 1000})

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    told = await gateway.client.post("/v1/chat/completions", content=b" " * 1001)
    untold = await gateway.client.post("/v1/chat/completions", content=pieces())

    assert [told.status_code, untold.status_code] == [413, 413]
    assert "1000 bytes" in told.json()["error"]["message"]
    assert gateway.engine.requests == []


async def test_requests_over_the_cap_get_503_with_retry_after(start: Start) -> None:
    gateway = await start(limits={"max_in_flight": 1, "max_queued": 0, "retry_after_seconds": 4})
    gateway.engine.behaviour = hang
    first = asyncio.create_task(gateway.chat())
    async with asyncio.timeout(2):
        while not gateway.engine.running:
            await asyncio.sleep(0.01)

    second = await gateway.chat()

    assert (second.status_code, second.headers["retry-after"]) == (503, "4")
    assert second.json()["error"]["code"] == "overloaded"
    first.cancel()
    await gateway.idle()
