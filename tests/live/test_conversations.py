"""Requests of one conversation go to one replica, and replies say where they come from where that is wanted."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.fake_engine import Received, completion
from tests.live.conftest import Start
from tests.live.replicas import Replicas, replicas

#: Enough that something of it is worth finding in a cache.
LONG = "All happy families are alike; each unhappy family is unhappy in its own way. " * 20


def turns(conversation: str, count: int) -> list[dict[str, str]]:
    """A conversation as it stands before the answer to its last turn."""
    first = {"role": "user", "content": f"{conversation}: {LONG}"}
    later = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And then?"}] * (count - 1)
    return [{"role": "system", "content": LONG}, first, *later]


async def ask(pool: Replicas, messages: list[dict[str, str]], **headers: str) -> httpx.Response:
    document: dict[str, Any] = {"model": "gemma", "messages": messages}
    answer = await pool.gateway.client.post(
        "/v1/chat/completions", json=document, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    assert answer.status_code == 200
    return answer


def asked_first(pool: Replicas) -> list[set[str]]:
    """How the first turns begin that each engine got."""
    return [
        {request.json()["messages"][1]["content"].split(":")[0] for request in fake.requests} for fake in pool.fakes
    ]


async def test_all_turns_of_a_conversation_go_to_one_replica(start: Start) -> None:
    async with replicas(start, 3, routing={"policy": "affinity", "explain": True}) as pool:
        names = [f"conversation {number}" for number in range(24)]
        # Until it is known how much is asked behind this system prompt, conversations move to where it has spread.
        for number in range(60):
            await ask(pool, turns(f"before {number}", 1))
        for fake in pool.fakes:
            fake.requests.clear()
        answers = [await ask(pool, turns(name, count)) for count in range(1, 5) for name in names]

        seen = asked_first(pool)
        assert set.union(*seen) == set(names)
        assert sum(map(len, seen)) == len(names)
        assert all(seen)
        assert sum(pool.calls) == 4 * len(names)
        assert {answer.headers["x-gemma-routing"].rpartition("reason=")[2] for answer in answers} == {"home"}


async def test_session_that_is_named_goes_to_one_replica_whatever_it_says(start: Start) -> None:
    async with replicas(start, 3, routing={"policy": "session"}) as pool:
        for turn in range(4):
            for session in range(24):
                await ask(pool, turns(f"turn {turn} of {session}", 1), x_session_id=f"session-{session}")

        sessions = [{name.rpartition(" ")[2] for name in each} for each in asked_first(pool)]
        assert sum(map(len, sessions)) == 24
        assert all(sessions)


async def test_conversation_whose_replica_has_too_much_to_do_spills_and_comes_back(start: Start) -> None:
    async with replicas(start, 2, routing={"policy": "affinity", "explain": True, "gauges_seconds": 0}) as pool:
        go_on = asyncio.Event()

        async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            await completion()(request, writer)

        for fake in pool.fakes:
            fake.behaviour = slow
        # Without a system prompt, which would spread when it is asked for so often.
        waiting = [asyncio.create_task(ask(pool, turns("one", 1)[1:])) for _ in range(6)]
        await pool.gateway.until(lambda: sum(fake.running for fake in pool.fakes) == 6)
        go_on.set()
        told = [answer.headers["x-gemma-routing"] for answer in await asyncio.gather(*waiting)]
        later = await ask(pool, turns("one", 2)[1:])

        homes = {re.findall("replica=([^;]+);", line)[0] for line in told if line.endswith("reason=home")}
        assert len(homes) == 1
        assert sum(f"reason=spilled from {min(homes)} (load" in line for line in told) == 2
        assert later.headers["x-gemma-routing"].startswith(f"replica={min(homes)}; ")
        assert sorted(pool.calls) == [2, 5]


@pytest.mark.parametrize(
    ("policy", "count", "reason"),
    [
        ("least_requests", 3, "least loaded of 3"),
        ("round_robin", 3, "next of 3"),
        ("affinity", 1, "the only replica"),
    ],
)
async def test_replies_say_where_they_come_from_and_why(start: Start, policy: str, count: int, reason: str) -> None:
    async with replicas(start, count, routing={"policy": policy, "explain": True}) as pool:
        plain, streamed = await pool.gateway.chat(), await pool.gateway.chat(stream=True)

        names = {fake.url.removeprefix("http://") for fake in pool.fakes}
        for answer in (plain, streamed):
            found = re.fullmatch(r"replica=(.+); load=(\d+); reason=(.+)", answer.headers["x-gemma-routing"])
            assert found is not None
            assert found[1] in names
            assert found[3] == reason


async def test_replies_keep_it_to_themselves_by_default(start: Start) -> None:
    async with replicas(start, 2) as pool:
        assert "x-gemma-routing" not in (await pool.gateway.chat()).headers
