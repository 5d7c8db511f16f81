"""Quotas, names and ranks in front of the real engine: what vLLM says is what is charged, renamed and recorded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.access import key_edits
from gateway.launcher import Server
from gateway.settings import Grant, Limits
from tests.engine.conftest import EngineMetrics
from tests.media.samples import data_url, image_bytes, picture
from tests.serving import serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

MESSAGES = [{"role": "user", "content": "Hello there!"}]
EXACT = {"min_tokens": 12, "max_tokens": 12, "temperature": 0}


@dataclass(frozen=True)
class Guarded:
    """A gateway with one limited key in front of the session's engine."""

    client: httpx.AsyncClient
    log: Path

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        answer = await self.client.post(path, json={"model": "alias", **fields})
        assert answer.status_code == 200, answer.text
        return answer

    async def records(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(30):
            while len(lines := self.log.read_text().splitlines()) < count:
                await asyncio.sleep(0.02)
        return [json.loads(line) for line in lines]


@pytest.fixture
async def guarded(server: Server, tmp_path: Path) -> AsyncIterator[Guarded]:
    keys, log, config = tmp_path / "keys.yaml", tmp_path / "usage.jsonl", tmp_path / "gateway.yaml"
    key = key_edits.create(keys, "alice", Grant(limits=Limits(tokens_per_minute=100_000), priority=3))
    models = {
        "real": {"served_name": "gemma", "modalities": ["text", "image", "audio"]},
        "dead": {"engine": "nobody", "served_name": "gemma"},
        "alias": {"targets": [{"model": "dead"}], "fallbacks": ["real"]},
    }
    document = {
        "auth": {"keys_file": str(keys)},
        "engines": {"default": {"url": f"unix:{server.engine_socket}"}, "nobody": {"url": "http://127.0.0.1:1"}},
        "models": models,
        "usage": {"file": str(log)},
    }
    await asyncio.to_thread(config.write_text, yaml.safe_dump(document))
    headers = {"authorization": f"Bearer {key}"}
    async with serving(config) as (_, url), httpx.AsyncClient(base_url=url, timeout=120, headers=headers) as client:
        yield Guarded(client, log)


def remaining(answer: httpx.Response) -> int:
    return int(answer.headers["x-ratelimit-remaining-tokens"])


async def test_charge_is_settled_with_what_vllm_says_that_it_used(guarded: Guarded) -> None:
    """By the difference between two requests alike, of which the second sees what the first has used."""
    plain = [await guarded.post("/v1/chat/completions", messages=MESSAGES, **EXACT) for _ in range(2)]
    streams = [await guarded.post("/v1/chat/completions", messages=MESSAGES, stream=True, **EXACT) for _ in range(2)]

    used = plain[0].json()["usage"]["total_tokens"]
    assert used > 12
    assert remaining(plain[0]) - remaining(plain[1]) == used
    assert remaining(streams[0]) - remaining(streams[1]) == used
    assert [(r["prompt_tokens"], r["completion_tokens"]) for r in await guarded.records(4)] == [(used - 12, 12)] * 4


async def test_replies_of_every_route_carry_the_name_that_was_requested(guarded: Guarded) -> None:
    """vLLM's own bytes, in which the name is replaced without being parsed."""
    answers = [
        await guarded.post("/v1/chat/completions", messages=MESSAGES, max_tokens=2),
        await guarded.post("/v1/completions", prompt="Hello", max_tokens=2),
        await guarded.post("/v1/responses", input="Hello", max_output_tokens=2),
        await guarded.post("/v1/messages", messages=MESSAGES, max_tokens=2),
    ]
    streams = [
        await guarded.post("/v1/chat/completions", messages=MESSAGES, max_tokens=3, stream=True),
        await guarded.post("/v1/completions", prompt="Hello", max_tokens=3, stream=True),
        await guarded.post("/v1/responses", input="Hello", max_output_tokens=3, stream=True),
        await guarded.post("/v1/messages", messages=MESSAGES, max_tokens=3, stream=True),
    ]

    assert [answer.json()["model"] for answer in answers] == ["alias"] * 4
    for stream in streams:
        assert set(re.findall(r'"model": ?"([^"]*)"', stream.text)) == {"alias"}
    assert {answer.headers["x-gemma-model"] for answer in (*answers, *streams)} == {"real"}


async def test_client_that_leaves_is_charged_for_what_was_passed_on_and_not_for_more_than_vllm_has_generated(
    guarded: Guarded, engine_metrics: EngineMetrics
) -> None:
    before = engine_metrics["vllm:generation_tokens_total"]
    body = {"model": "alias", "messages": MESSAGES, "stream": True, "min_tokens": 3000, "max_tokens": 3000}
    async with guarded.client.stream("POST", "/v1/chat/completions", json=body) as response:
        got = 0
        async for chunk in response.aiter_bytes():
            got += chunk.count(b"\n\n")
            if got > 300:
                break
    (record,) = await guarded.records(1)
    await asyncio.sleep(1)

    generated = engine_metrics["vllm:generation_tokens_total"] - before
    assert (record["finish"], record["estimated"]) == ("aborted", True)
    # Not more than vLLM has generated, which puts several tokens into one event where it is faster than its reader.
    assert got - 2 <= record["completion_tokens"] <= generated + 2


async def test_priority_of_the_key_is_taken_by_the_engine_of_our_preset(guarded: Guarded) -> None:
    """vLLM refuses a priority other than 0 unless its scheduler goes by it."""
    answers = await asyncio.gather(
        *[guarded.post("/v1/chat/completions", messages=MESSAGES, max_tokens=4, priority=rank) for rank in (9, 5, -5)]
    )
    assert len(answers) == 3


async def test_media_are_charged_once_they_are_known(guarded: Guarded) -> None:
    url = data_url(image_bytes(image=picture(size=(96, 96))))
    image = {"type": "image_url", "image_url": {"url": url}}
    content = [{"type": "text", "text": "?"}, image]
    messages = [{"role": "user", "content": content}]
    answers = [await guarded.post("/v1/chat/completions", messages=messages, **EXACT) for _ in range(2)]

    usage = answers[0].json()["usage"]
    records = await guarded.records(2)
    assert remaining(answers[0]) - remaining(answers[1]) == usage["total_tokens"]
    assert records[0]["image_tokens"] == usage["prompt_tokens_details"]["image_tokens"] > 0
