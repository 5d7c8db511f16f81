"""A request and its answer pass the gateway as they should, over real sockets."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests import fake_engine
from tests.fake_engine import Received, event
from tests.live.conftest import MESSAGES, Start


def events(response: httpx.Response) -> list[str]:
    return [part.removeprefix("data: ") for part in response.text.split("\n\n") if part]


async def test_body_that_needs_no_change_goes_through_as_the_very_same_bytes(start: Start) -> None:
    gateway = await start()
    body = b'{ "model":"served",  "messages" : [], "unknown": {"kept": 1.50} }'
    gateway = await start(models={"served": {}})

    await gateway.client.post("/v1/chat/completions", content=body)

    assert gateway.engine.requests[0].body == body


async def test_alias_becomes_the_engines_model_name_and_the_rest_stays(start: Start) -> None:
    gateway = await start()

    await gateway.chat(temperature=0.5, stop=["a"], nested={"x": [1, 2]})

    assert gateway.engine.requests[0].json() == {
        "model": "served",
        "messages": MESSAGES,
        "temperature": 0.5,
        "stop": ["a"],
        "nested": {"x": [1, 2]},
    }


async def test_catch_all_answers_for_any_model_name_and_for_none(start: Start) -> None:
    gateway = await start(models={"*": {"served_name": "served"}})

    named = await gateway.chat(model="ignore")
    unnamed = await gateway.client.post("/v1/chat/completions", json={"messages": MESSAGES})

    assert [named.status_code, unnamed.status_code] == [200, 200]
    assert [r.json()["model"] for r in gateway.engine.requests] == ["served", "served"]


async def test_stream_passes_whole_and_the_usage_that_was_not_asked_for_stays_inside(start: Start) -> None:
    gateway = await start()

    response = await gateway.chat(stream=True)

    *chunks, last = events(response)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [json.loads(c)["choices"][0]["delta"]["content"] for c in chunks] == ["a", "b", "c"]
    assert last == "[DONE]"
    assert gateway.engine.requests[0].json()["stream_options"] == {"include_usage": True}
    assert gateway.metric("gemma_gateway_tokens_total", model="gemma", kind="prompt") == 7
    assert gateway.metric("gemma_gateway_tokens_total", model="gemma", kind="completion") == 3


async def test_stream_shows_the_usage_that_was_asked_for(start: Start) -> None:
    gateway = await start()

    response = await gateway.chat(stream=True, stream_options={"include_usage": True})

    assert json.loads(events(response)[-2])["usage"] == fake_engine.USAGE


async def test_usage_tells_the_speed_of_an_answer_where_the_configuration_asks_for_it(start: Start) -> None:
    gateway = await start(server={"usage_speed": True})

    async def slowly(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await fake_engine.begin(writer)
        await fake_engine.send(writer, event("a"))
        await asyncio.sleep(0.1)
        await fake_engine.send(writer, fake_engine.data({"choices": [], "usage": fake_engine.USAGE}))
        await fake_engine.send(writer, b"data: [DONE]\n\n")
        await fake_engine.send(writer, b"")

    plain = (await gateway.chat()).json()["usage"]
    gateway.engine.behaviour = slowly
    shown = await gateway.chat(stream=True, stream_options={"include_usage": True})
    hidden = await gateway.chat(stream=True)

    streamed = json.loads(events(shown)[-2])["usage"]
    assert plain.keys() - fake_engine.USAGE.keys() == {"tokens_per_second"}
    assert fake_engine.USAGE.items() <= streamed.items()
    assert streamed["time_to_first_token_ms"] >= 50
    # Two more tokens came after the first, 0.1 s later at the earliest.
    assert 0 < streamed["tokens_per_second"] <= 20
    assert b"tokens_per_second" not in hidden.content


async def test_usage_of_a_plain_answer_is_counted(start: Start) -> None:
    gateway = await start()

    response = await gateway.chat()

    assert response.json()["choices"][0]["message"]["content"] == "abc"
    assert gateway.metric("gemma_gateway_tokens_total", model="gemma", kind="completion") == 3


async def test_events_cut_anywhere_reach_the_client_whole(start: Start) -> None:
    gateway = await start()
    stream = event("one") + event("two") + b"data: [DONE]\n\n"

    async def in_pieces(_: Received, writer: asyncio.StreamWriter) -> None:
        await fake_engine.begin(writer)
        for at in range(0, len(stream), 5):
            await fake_engine.send(writer, stream[at : at + 5])
        await fake_engine.send(writer, b"")

    gateway.engine.behaviour = in_pieces

    response = await gateway.chat(stream=True)

    assert response.content == stream


async def test_request_ids_are_the_gateways_own_and_unique(start: Start) -> None:
    gateway = await start()
    headers = {"x-request-id": "mine"}

    first = await gateway.client.post("/v1/chat/completions", json={"model": "gemma"}, headers=headers)
    second = await gateway.client.post("/v1/chat/completions", json={"model": "gemma", "request_id": "mine"})

    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    assert len({*ids, "mine"}) == 3
    assert [r.headers["x-request-id"] for r in gateway.engine.requests] == ids
    assert "request_id" not in gateway.engine.requests[1].json()


async def test_fields_for_engines_alone_are_withheld(start: Start) -> None:
    gateway = await start(models={"served": {}})

    await gateway.chat(model="served", kv_transfer_params={"remote_host": "inside"}, ec_transfer_params={})

    assert gateway.engine.requests[0].json() == {"model": "served", "messages": MESSAGES}


async def test_trace_context_reaches_the_engine(start: Start) -> None:
    gateway = await start()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await gateway.client.post("/v1/chat/completions", json={"model": "gemma"}, headers={"traceparent": trace})

    assert gateway.engine.requests[0].headers["traceparent"] == trace


async def test_what_nobody_read_of_an_answer_is_not_taken_for_the_next(start: Start) -> None:
    gateway = await start()
    engine = gateway.gateway.engines["default"]
    gateway.engine.behaviour = fake_engine.reply(b'{"one":1}', 400)
    with await engine.send(b"POST", "/v1/chat/completions", (b"{}",)) as unread:
        await asyncio.sleep(0.1)

    gateway.engine.behaviour = fake_engine.reply(b'{"two":2}')
    with await engine.send(b"POST", "/v1/chat/completions", (b"{}",)) as answer:
        assert await answer.read_all() == b'{"two":2}'

    assert unread.status == 400


async def test_connections_to_the_engine_are_reused(start: Start) -> None:
    gateway = await start()
    before = gateway.engine.connections

    for _ in range(10):
        await gateway.chat()

    assert gateway.engine.connections - before <= 1


@pytest.mark.parametrize("size", [1_000, 300_000, 4_000_000])
async def test_large_bodies_pass_in_both_directions(start: Start, size: int) -> None:
    gateway = await start()
    text = "x" * size

    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        await fake_engine.reply(json.dumps({"echo": request.json()["prompt"]}).encode())(request, writer)

    gateway.engine.behaviour = echo

    response = await gateway.client.post("/v1/completions", json={"model": "gemma", "prompt": text})

    assert response.json() == {"echo": text}


async def test_models_lists_the_aliases_but_not_the_catch_all(start: Start) -> None:
    gateway = await start(models={"*": {"served_name": "served"}, "gemma": {"max_model_len": 8192}})

    listed = (await gateway.client.get("/v1/models")).json()
    one = (await gateway.client.get("/v1/models/gemma")).json()

    assert listed["object"] == "list"
    assert listed["data"] == [one]
    assert one["id"] == "gemma"
    assert one["max_model_len"] == 8192
    assert one["modalities"] == ["text", "image", "audio"]


async def test_openapi_document_describes_every_inference_route(start: Start) -> None:
    gateway = await start()

    paths = (await gateway.client.get("/openapi.json")).json()["paths"]

    assert {"/v1/chat/completions", "/v1/messages", "/v1/models"} <= set(paths)


@pytest.mark.parametrize("half", [b"\n", b"d", b"da", b'data: {"id', event("b")[:-1]])
async def test_what_is_no_whole_event_yet_waits_for_its_rest(start: Start, half: bytes) -> None:
    gateway = await start()

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        await fake_engine.begin(writer)
        for _number in range(3):
            await fake_engine.send(writer, event("a", "served"))
            await asyncio.sleep(0.02)
        await fake_engine.send(writer, half)
        await asyncio.sleep(0.02)
        fake_engine.abort(writer)

    gateway.engine.behaviour = behave

    response = await gateway.chat(stream=True)

    *whole, fault = response.text.split("\n\n")[:-1]
    assert whole == [event("a", "gemma").decode().strip()] * 3
    assert json.loads(fault.removeprefix("data: "))["error"]["code"] == "engine_failed"


async def test_later_events_are_looked_through_as_the_first_is(start: Start) -> None:
    gateway = await start()
    twice = fake_engine.data({"metadata": {"model": "served"}, "model": "served"})
    fault = b": note\n" + fake_engine.data({"error": {"message": "inside", "code": 500}})

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        await fake_engine.begin(writer)
        for payload in (event("a", "served"), event("b", "served"), twice, fault, b""):
            await fake_engine.send(writer, payload)
            await asyncio.sleep(0.02)

    gateway.engine.behaviour = behave

    response = await gateway.chat(stream=True)

    assert response.text.count('"model":"gemma"') == 4
    assert "served" not in response.text
    assert "inside" not in response.text
    assert json.loads(response.text.rpartition("data: ")[2])["error"]["code"] == "engine_failed"
