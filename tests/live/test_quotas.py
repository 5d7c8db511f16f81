"""Limits on requests and tokens, over real sockets: refusals that tell the truth, and charges that end true."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access import key_edits
from gateway.settings import Grant, Limits
from tests.fake_engine import USAGE, Received, begin, data, event, reply, send
from tests.live.conftest import MESSAGES, Running, Start

USED = USAGE["total_tokens"]


async def limited(start: Start, tmp_path: Path, **limits: int) -> tuple[Running, str]:
    """A gateway with one key that has these limits."""
    path = tmp_path / "keys.yaml"
    key = key_edits.create(path, "alice", Grant(limits=Limits(**limits)))
    return await start(auth={"keys_file": str(path)}), key


def remaining(answer: httpx.Response, kind: str) -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{kind}"])


async def test_headers_tell_limit_and_remainder_as_openai_does(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, requests_per_minute=5, tokens_per_minute=1000)

    first, second = await gateway.chat(key, max_tokens=10), await gateway.chat(key, max_tokens=10, stream=True)

    assert first.headers["x-ratelimit-limit-requests"] == "5"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert [remaining(first, "requests"), remaining(second, "requests")] == [4, 3]
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert remaining(first, "tokens") < 990


async def test_request_over_the_limit_is_a_429_and_never_reaches_the_engine(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, requests_per_minute=2)

    answers = [await gateway.chat(key) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    error = answers[2].json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "this caller" in error["message"]
    assert "limit 2" in error["message"]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 61
    assert len(gateway.engine.requests) == 2
    assert gateway.metric("gemma_gateway_rate_limited_total", model="gemma", kind="requests") == 1


async def test_tokens_are_charged_in_advance_and_settled_with_what_was_used(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=1000)

    asked = await gateway.chat(key, max_tokens=900)
    await gateway.idle()
    later = await gateway.chat(key, max_tokens=900)

    assert asked.status_code == later.status_code == 200
    assert remaining(asked, "tokens") - remaining(later, "tokens") == USED


async def test_answer_under_way_counts_with_all_that_it_may_become(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=1000)
    go_on = asyncio.Event()

    async def wait(request: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await reply(json.dumps({"usage": USAGE}).encode())(request, writer)

    gateway.engine.behaviour = wait
    first = asyncio.create_task(gateway.chat(key, max_tokens=900))
    await gateway.until(lambda: gateway.engine.running == 1)

    second = await gateway.chat(key, max_tokens=900)
    go_on.set()

    assert ((await first).status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["type"] == "tokens"


async def test_request_that_could_never_fit_is_a_400_that_names_the_limit(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=100)

    answer = await gateway.chat(key, max_tokens=101)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "tokens_exceed_limit", "max_tokens")
    assert "100" in error["message"]


async def test_refused_requests_use_no_tokens(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=1000)
    gateway.engine.behaviour = reply(b'{"error":{"message":"no"}}', 400)

    answers = [await gateway.chat(key, max_tokens=500) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [400] * 4
    assert len({remaining(answer, "tokens") for answer in answers}) == 1


async def test_client_that_leaves_pays_for_the_prompt_and_what_it_got(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=10_000)

    async def never_ending(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for __ in range(20):
            await send(writer, event("x"))
        await asyncio.sleep(30)

    full = remaining(await gateway.chat(key, max_tokens=1), "tokens")
    await gateway.idle()
    gateway.engine.behaviour = never_ending
    body = {"model": "gemma", "messages": MESSAGES, "stream": True, "max_tokens": 5000}
    headers = {"authorization": f"Bearer {key}"}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        got = b""
        async for chunk in response.aiter_bytes():
            got += chunk
            if got.count(b"\n\n") == 20:
                break
    await gateway.idle()
    gateway.engine.behaviour = reply(json.dumps({"usage": USAGE}).encode())

    after = remaining(await gateway.chat(key, max_tokens=1), "tokens")

    assert 20 < full - after - USED < 60


async def test_limits_of_the_model_and_of_all_together_hold_for_every_caller(start: Start) -> None:
    gateway = await start(models={"gemma": {"limits": {"requests_per_minute": 3}}})
    answers = [await gateway.chat() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "the model 'gemma'" in answers[3].json()["error"]["message"]

    gateway = await start(quotas={"total": {"requests_per_minute": 1}})
    answers = [await gateway.chat() for _ in range(2)]
    assert "all callers together" in answers[1].json()["error"]["message"]


async def test_alias_is_no_way_round_the_limit_of_its_model(start: Start) -> None:
    gateway = await start(
        models={"gemma": {"limits": {"requests_per_minute": 2}}, "alias": {"targets": [{"model": "gemma"}]}}
    )
    answers = [await gateway.chat(model=name) for name in ("alias", "gemma", "alias", "gemma")]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


async def test_requests_at_once_are_counted_until_they_end_however_they_end(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, max_in_flight=2)
    normal = gateway.engine.behaviour

    async def hang(_: Received, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    gateway.engine.behaviour = hang
    running = [asyncio.create_task(gateway.chat(key)) for _ in range(2)]
    await gateway.until(lambda: gateway.engine.running == 2)
    third = await gateway.chat(key)
    for task in running:
        task.cancel()
    await gateway.idle()
    gateway.engine.behaviour = normal

    assert third.status_code == 429
    assert [(await gateway.chat(key)).status_code for _ in range(5)] == [200] * 5


async def test_request_that_finds_no_place_is_not_charged(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = key_edits.create(path, "alice", Grant(limits=Limits(requests_per_minute=3)))
    gateway = await start(auth={"keys_file": str(path)}, limits={"max_in_flight": 1, "max_queued": 0})
    normal = gateway.engine.behaviour

    async def hang(_: Received, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    gateway.engine.behaviour = hang
    first = asyncio.create_task(gateway.chat(key))
    await gateway.until(lambda: gateway.engine.running == 1)
    shed = [await gateway.chat(key) for _ in range(5)]
    first.cancel()
    await gateway.idle()
    gateway.engine.behaviour = normal
    after = [await gateway.chat(key) for _ in range(3)]

    assert {answer.status_code for answer in shed} == {503}
    assert [answer.status_code for answer in after] == [200, 200, 429]


async def test_requests_that_wait_are_let_in_as_places_are_freed(start: Start) -> None:
    gateway = await start(limits={"max_in_flight": 2, "max_queued": 50, "queue_seconds": 10})

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        await reply(json.dumps({"usage": USAGE}).encode())(request, writer)

    gateway.engine.behaviour = slow
    answers = await asyncio.gather(*[gateway.chat() for _ in range(20)])

    assert {answer.status_code for answer in answers} == {200}
    assert gateway.metric("gemma_gateway_wait_seconds_count") == 18
    await gateway.idle()


async def test_budget_for_bodies_refuses_before_it_reads_and_is_given_back(start: Start) -> None:
    gateway = await start(limits={"max_body_bytes_in_flight": 10_000})
    normal = gateway.engine.behaviour

    async def hang(_: Received, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    gateway.engine.behaviour = hang
    first = asyncio.create_task(gateway.chat(padding="x" * 6000))
    await gateway.until(lambda: gateway.engine.running == 1)
    second = await gateway.chat(padding="x" * 6000)
    first.cancel()
    await gateway.idle()
    gateway.engine.behaviour = normal
    third, too_large = await gateway.chat(padding="x" * 6000), await gateway.chat(padding="x" * 12_000)

    assert [second.status_code, third.status_code, too_large.status_code] == [503, 200, 413]
    assert "limits.max_body_bytes_in_flight" in second.json()["error"]["message"]
    assert second.headers["retry-after"]
    assert gateway.metric("gemma_gateway_body_bytes_in_flight") == 0


@pytest.mark.parametrize(
    ("path", "body", "cost"),
    [
        ("/tokenize", {"prompt": "x" * 4000}, 0),
        ("/v1/embeddings", {"input": "x" * 4000}, USED),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 100}, USED),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 100}, USED),
    ],
)
async def test_every_route_is_charged_by_its_own_usage(
    start: Start, tmp_path: Path, path: str, body: dict[str, Any], cost: int
) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=5000)
    usage = {"input_tokens": USED, "output_tokens": 0} if "me" in path or "res" in path else USAGE
    gateway.engine.behaviour = reply(json.dumps({"usage": usage} if cost else {}, separators=(",", ":")).encode())
    headers = {"authorization": f"Bearer {key}"}

    answers = []
    for _ in range(2):
        answers.append(await gateway.client.post(path, json={"model": "gemma", **body}, headers=headers))
        await gateway.idle()

    assert remaining(answers[0], "tokens") - remaining(answers[1], "tokens") == cost


async def test_stream_is_settled_by_its_last_event(start: Start, tmp_path: Path) -> None:
    gateway, key = await limited(start, tmp_path, tokens_per_minute=5000)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("a"))
        await send(writer, data({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 23}}))
        await send(writer, b"data: [DONE]\n\n")
        await send(writer, b"")

    gateway.engine.behaviour = answer
    first = await gateway.chat(key, stream=True, max_tokens=50)
    await gateway.idle()
    second = await gateway.chat(key, stream=True, max_tokens=50)

    assert remaining(first, "tokens") - remaining(second, "tokens") == 123
