"""Two thousand requests, half of them cut off at random moments: everything ends where it should."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.access import key_edits
from gateway.access.quota import MemoryQuotas, Subject
from gateway.settings import Grant, Limits
from tests.fake_engine import USAGE, Received, begin, compact, data, event, reply, send
from tests.live.conftest import MESSAGES, Running, Start

pytestmark = pytest.mark.slow

_REQUESTS = 2000
_AT_ONCE = 40
_MUCH = 10**9
_LIMITS = Limits(requests_per_minute=_MUCH, tokens_per_minute=_MUCH, tokens_per_day=_MUCH, max_in_flight=_MUCH)


async def engine(request: Received, writer: asyncio.StreamWriter) -> None:
    """Takes its time, before the answer and within."""
    chance = random.Random(request.body)
    await asyncio.sleep(chance.random() * 0.02)
    if not request.json().get("stream"):
        await reply(compact({"usage": USAGE}))(request, writer)
        return
    await begin(writer)
    for _ in range(3):
        await send(writer, event("x"))
        await asyncio.sleep(chance.random() * 0.01)
    await send(writer, data({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
    await send(writer, b"")


async def storm(gateway: Running, keys: list[str]) -> None:
    chance = random.Random(4)
    numbers = iter(range(_REQUESTS))

    async def send_some() -> None:
        for number in numbers:
            await one(gateway, keys[number % len(keys)], number, chance.random() * 0.06 if number % 2 else None)

    await asyncio.gather(*[send_some() for _ in range(_AT_ONCE)])


async def one(gateway: Running, key: str, number: int, cut_after: float | None) -> None:
    """One request on a bare socket, cut off after some seconds or read to its end."""
    body = {"model": "gemma", "messages": MESSAGES, "n": 1, "seed": number, "stream": number % 4 < 2, "max_tokens": 50}
    text = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)
    try:
        async with asyncio.timeout(cut_after):
            answer = await reader.read()
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")), answer[:200]
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()


@pytest.mark.timeout(90)
async def test_slots_queue_quotas_and_bodies_end_where_the_records_say(start: Start, tmp_path: Path) -> None:
    path, log = tmp_path / "keys.yaml", tmp_path / "usage.jsonl"
    keys = [key_edits.create(path, f"key {number}", Grant(limits=_LIMITS)) for number in range(3)]
    gateway = await start(
        auth={"keys_file": str(path)},
        limits={"max_in_flight": 10, "max_queued": 25, "queue_seconds": 1},
        quotas={"total": _LIMITS.model_dump()},
        usage={"file": str(log)},
    )
    gateway.engine.behaviour = engine

    await storm(gateway, keys)
    await gateway.idle()
    await gateway.until(lambda: len(log.read_text().splitlines()) == _REQUESTS)

    records = [json.loads(line) for line in log.read_text().splitlines()]
    finishes = {finish: sum(r["finish"] == finish for r in records) for finish in ("complete", "aborted", "failed")}
    assert finishes["complete"] > _REQUESTS / 5
    assert finishes["aborted"] > _REQUESTS / 8
    assert gateway.gateway.admission.waiting == 0
    assert gateway.metric("gemma_gateway_body_bytes_in_flight") == 0
    assert len({record["request_id"] for record in records}) == _REQUESTS
    await quotas_hold(gateway, records)


async def quotas_hold(gateway: Running, records: list[dict[str, Any]]) -> None:
    """That quotas have been charged what the log has, and no place is taken."""
    quotas = gateway.gateway._current.parts.quotas
    assert isinstance(quotas, MemoryQuotas)
    charged = [record for record in records if record["status"] != 503]
    for key in {record["key"] for record in records}:
        mine = [record for record in charged if record["key"] == key]
        used = sum(record.get("prompt_tokens", 0) + record.get("completion_tokens", 0) for record in mine)
        full = Limits(requests_per_minute=len(mine) + 1, tokens_per_minute=used + 1, max_in_flight=1)
        entry = await quotas.enter([Subject(f"key:{key}", "this key", full)], 1)
        assert b"x-ratelimit-remaining-requests: 0\r\n" in entry.head
        assert b"x-ratelimit-remaining-tokens: 0\r\n" in entry.head
        entry.cancel()
