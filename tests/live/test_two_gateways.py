"""Two gateway processes that count together in one Valkey or Redis server."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access import key_edits
from gateway.settings import Grant, Limits
from tests.access import valkey
from tests.fake_engine import USAGE, Received, compact, reply
from tests.live.conftest import MESSAGES
from tests.live.test_process import Process, started

pytestmark = pytest.mark.slow

_AT_ONCE = 20


@dataclass(frozen=True)
class Pair:
    """Both processes, and a key of each kind of limit."""

    gateways: list[Process]
    keys: dict[str, str]

    async def storm(self, key: str, requests: int, **fields: Any) -> list[httpx.Response]:
        """So many requests, alternately to one and the other, `_AT_ONCE` at a time to each."""
        body = {"model": "gemma", "messages": MESSAGES, **fields}
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        answers: list[httpx.Response] = []
        numbers = itertools.count()
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=2 * _AT_ONCE)) as client:

            async def ask(url: str) -> None:
                while next(numbers) < requests:
                    answers.append(await client.post(f"{url}/v1/chat/completions", json=body, headers=headers))

            await asyncio.gather(*[ask(gateway.url) for gateway in self.gateways for _ in range(_AT_ONCE)])
        return answers


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    limits = {
        "requests": Limits(requests_per_minute=250),
        "tokens": Limits(tokens_per_minute=20_000),
        "places": Limits(max_in_flight=5),
    }
    keys = {name: key_edits.create(tmp_path / "keys.yaml", name, Grant(limits=limit)) for name, limit in limits.items()}
    with valkey.serving(tmp_path) as store:
        async with both(tmp_path, store.url) as gateways:
            yield Pair(gateways, keys)


@asynccontextmanager
async def both(folder: Path, store: str) -> AsyncIterator[list[Process]]:
    sections = {
        "auth": {"keys_file": str(folder / "keys.yaml")},
        "quotas": {"store": {"url": store, "timeout_seconds": 2}},
    }
    async with AsyncExitStack() as stack:
        folders = [folder / name for name in ("one", "two")]
        for each in folders:
            each.mkdir()
        yield [await stack.enter_async_context(started(each, **sections)) for each in folders]


async def test_requests_of_both_together_reach_the_limit_and_never_exceed_it(pair: Pair) -> None:
    answers = await pair.storm("requests", 600)

    assert Counter(answer.status_code for answer in answers) == {200: 250, 429: 350}
    assert all(gateway.engine.requests for gateway in pair.gateways)


async def test_tokens_of_both_together_reach_the_limit_and_never_exceed_it(pair: Pair) -> None:
    """What is charged in advance is a little more than what is used, which is given back, so that all of it can be."""

    async def as_asked(request: Received, writer: asyncio.StreamWriter) -> None:
        usage = {"prompt_tokens": 18, "completion_tokens": request.json()["max_tokens"]}
        await reply(compact({"model": "gemma", "usage": usage}))(request, writer)

    for gateway in pair.gateways:
        gateway.engine.behaviour = as_asked

    answers = await pair.storm("tokens", 400, max_tokens=92)

    used = sum(sum(answer.json()["usage"].values()) for answer in answers if answer.status_code == 200)
    assert 0.98 * 20_000 <= used <= 20_000
    assert {answer.status_code for answer in answers} == {200, 429}


async def test_requests_at_once_of_both_together_never_exceed_the_limit(pair: Pair) -> None:
    most = 0

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        most = max(most, sum(gateway.engine.running for gateway in pair.gateways))
        await asyncio.sleep(0.02)
        await reply(compact({"model": "gemma", "usage": USAGE}))(request, writer)

    for gateway in pair.gateways:
        gateway.engine.behaviour = slow

    answers = await pair.storm("places", 300)

    assert most == 5
    assert {answer.status_code for answer in answers} == {200, 429}
    assert (await pair.storm("places", 1))[0].status_code == 200
