"""Media through the running gateway: what the engine gets, what the client is told, who shares whose caches."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.access import key_edits as keys
from gateway.media import budget
from gateway.settings import Family
from tests.fake_engine import Behaviour, Received, reply
from tests.live.conftest import MESSAGES, Running, Start
from tests.media.samples import clip, data_url, image_bytes, image_part, picture, tone

PICTURE = picture(size=(480, 480))
IMAGE = image_part(data_url(image_bytes("PNG", PICTURE)))
BMP = image_part(data_url(image_bytes("BMP", PICTURE), "image/bmp"))
HUGE = image_part(data_url(image_bytes("BMP", picture(size=(3000, 2500))), "image/bmp"))
CLIP = {"type": "audio_url", "audio_url": {"url": data_url(clip(tone(1, 16_000), 16_000), "audio/wav")}}
EXPECTED = {
    "image_tokens": budget.image_tokens(480, 480, Family.GEMMA4, None),
    "audio_tokens": budget.audio_tokens(16_000, Family.GEMMA4),
}
USAGE = b'"usage":{"prompt_tokens":100,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}'


def chat(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "gemma", "messages": [{"role": "user", "content": list(parts)}], **fields}


def refusal(message: str) -> Behaviour:
    body = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
    return reply(json.dumps(body).encode(), status=400)


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> AsyncIterator[tuple[Running, list[httpx.AsyncClient]]]:
    """A gateway with two keys, and a client for each."""
    path = tmp_path / "keys.yaml"
    headers = [{"authorization": f"Bearer {keys.create(path, name)}"} for name in ("alice", "bob")]
    gateway = await start(auth={"keys_file": str(path)})
    clients = [httpx.AsyncClient(base_url=gateway.url, headers=header) for header in headers]
    yield gateway, clients
    await asyncio.gather(*[client.aclose() for client in clients])


async def test_whole_answer_tells_what_the_media_cost(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = reply(
        b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[],' + USAGE + b"}"
    )

    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        answer = await client.chat.completions.create(**chat(IMAGE, CLIP))

    details = answer.usage.prompt_tokens_details.model_dump(exclude_none=True)
    assert details == {**EXPECTED, "cached_tokens": 4}


async def test_streamed_answer_tells_what_the_media_cost(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = reply(
        b'data: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n", content_type="text/event-stream"
    )

    answer = await gateway.client.post(
        "/v1/chat/completions", json=chat(IMAGE, CLIP, stream=True, stream_options={"include_usage": True})
    )

    usage = json.loads(answer.text.split("\n")[0].removeprefix("data: "))["usage"]
    assert usage["prompt_tokens_details"] == {**EXPECTED, "cached_tokens": 4}


async def test_text_has_no_media_in_its_usage(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = reply(b'{"choices":[],' + USAGE + b"}")

    answer = await gateway.chat()

    assert answer.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


async def test_large_picture_reaches_the_engine_byte_by_byte_under_the_engines_model_name(start: Start) -> None:
    gateway = await start()
    url = data_url(image_bytes("PNG", picture(size=(1100, 1100)), compress_level=0))

    answer = await gateway.client.post("/v1/chat/completions", json=chat(image_part(url, detail="high"), seed=7))

    sent = gateway.engine.requests[0].json()
    assert answer.status_code == 200
    assert (sent["model"], sent["seed"]) == ("served", 7)
    assert sent["messages"][0]["content"][0]["image_url"]["url"] == url
    assert sent["mm_processor_kwargs"] == {"max_soft_tokens": 1120}
    assert gateway.metric("gemma_gateway_media_parts_total", modality="image", outcome="passed") == 1


async def test_picture_that_the_engine_cannot_read_is_named_after_it_has_refused_it(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = refusal("cannot identify image file <_io.BytesIO object at 0x7f>")
    broken = bytearray(image_bytes("PNG", PICTURE))
    broken[len(broken) // 2] ^= 0xFF

    answer = await gateway.client.post("/v1/chat/completions", json=chat(IMAGE, image_part(data_url(bytes(broken)))))

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].image_url.url", "invalid_media")
    assert gateway.metric("gemma_gateway_media_errors_total", code="invalid_media") == 1
    await gateway.idle()


async def test_refusal_for_another_reason_is_the_engines_own(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = refusal("temperature must be non-negative")

    answer = await gateway.client.post("/v1/chat/completions", json=chat(IMAGE, temperature=-1))

    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "temperature must be non-negative")


async def test_decoding_over_its_time_is_a_413_that_names_the_part_and_the_limit(start: Start) -> None:
    gateway = await start(media={"decode_seconds": 0.01, "decode_workers": 1})

    answer = await gateway.client.post("/v1/chat/completions", json=chat(HUGE))

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (413, "messages[0].content[0].image_url.url")
    assert "media.decode_seconds" in error["message"]
    await gateway.idle()


async def test_more_bytes_in_flight_than_there_may_be_are_a_503_that_says_when_to_come_back(start: Start) -> None:
    limit = 1_000_000
    gateway = await start(media={"max_bytes": limit, "max_video_bytes": limit, "max_bytes_in_flight": limit})
    other = image_part(data_url(image_bytes("BMP", picture(size=(481, 480))), "image/bmp"))

    answer = await gateway.client.post("/v1/chat/completions", json=chat(BMP, other))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "media.max_bytes_in_flight" in answer.json()["error"]["message"]
    assert gateway.metric("gemma_gateway_media_bytes_in_flight") == 0


async def test_each_key_has_the_engines_caches_to_itself(guarded: tuple[Running, list[httpx.AsyncClient]]) -> None:
    gateway, (alice, bob) = guarded

    for client in (alice, bob, alice):
        await client.post("/v1/chat/completions", json=chat(IMAGE))

    one, other, again = (request.json() for request in gateway.engine.requests)
    assert one["cache_salt"] == again["cache_salt"] != other["cache_salt"]
    assert [r["messages"][0]["content"][0]["uuid"] for r in (one, other, again)].count(
        one["messages"][0]["content"][0]["uuid"]
    ) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 1}),
        ("/v1/embeddings", {"input": "x"}),
    ],
)
async def test_no_key_can_choose_anothers_salt(
    guarded: tuple[Running, list[httpx.AsyncClient]], path: str, body: dict[str, Any]
) -> None:
    gateway, (alice, bob) = guarded
    await alice.post(path, json={"model": "gemma", **body})
    salt = gateway.engine.requests[0].json()["cache_salt"]

    await bob.post(path, json={"model": "gemma", **body, "cache_salt": salt})
    await bob.post(path, json={"model": "gemma", **body})

    salts = [request.json()["cache_salt"] for request in gateway.engine.requests]
    assert len(set(salts)) == 3


async def test_open_gateway_leaves_the_salt_to_its_clients(start: Start) -> None:
    gateway = await start()

    await gateway.chat()
    await gateway.chat(cache_salt="mine")

    assert [request.json().get("cache_salt") for request in gateway.engine.requests] == [None, "mine"]


async def test_keys_share_caches_where_that_is_configured(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = keys.create(path, "alice")
    gateway = await start(auth={"keys_file": str(path), "isolate_caches": False})

    await gateway.client.post("/v1/chat/completions", json=chat(IMAGE), headers={"authorization": f"Bearer {key}"})

    assert "cache_salt" not in gateway.engine.requests[0].json()


async def test_client_that_leaves_while_its_media_are_decoded_leaves_nothing_behind(start: Start) -> None:
    gateway = await start(media={"decode_workers": 1})

    sending = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=chat(HUGE)))
    async with asyncio.timeout(10):
        while not gateway.metric("gemma_gateway_media_decodes_waiting"):
            await asyncio.sleep(0.002)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    await gateway.idle()
    assert gateway.metric("gemma_gateway_media_decodes_waiting") == 0
    assert gateway.engine.requests == []


async def test_same_clip_in_every_turn_of_a_conversation_is_decoded_once(start: Start) -> None:
    gateway = await start()
    mp3 = base64.b64encode(clip(tone(2, 44_100, 2), 44_100, "MP3")).decode()
    turn = {"type": "input_audio", "input_audio": {"data": mp3, "format": "mp3"}}

    for _ in range(3):
        await gateway.client.post("/v1/chat/completions", json=chat(turn))

    sent = [_clip_of(request) for request in gateway.engine.requests]
    assert sent[0] == sent[1] == sent[2]
    assert gateway.metric("gemma_gateway_media_parts_total", modality="audio", outcome="decoded") == 1
    assert gateway.metric("gemma_gateway_media_parts_total", modality="audio", outcome="cached") == 2


def _clip_of(request: Received) -> Any:
    return request.json()["messages"][0]["content"][0]
