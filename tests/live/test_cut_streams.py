"""Two thousand streams that clients cut off at random moments: whatever a request holds by then is given back."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.access import key_edits
from gateway.settings import Grant, Limits
from tests.fake_engine import USAGE, FakeEngine, Received, begin, data, event, send
from tests.live.conftest import Start
from tests.live.replicas import Replicas, replicas, request
from tests.live.test_storm import quotas_hold

pytestmark = pytest.mark.slow

_STREAMS = 2000
_AT_ONCE = 50
_MUCH = 10**9
_LIMITS = Limits(requests_per_minute=_MUCH, tokens_per_minute=_MUCH, max_in_flight=_MUCH)


async def engine(received: Received, writer: asyncio.StreamWriter) -> None:
    """Takes its time before its head, before its first event, and between the others."""
    chance = random.Random(received.body)
    await asyncio.sleep(chance.random() * 0.03)
    await begin(writer)
    for _ in range(10):
        await asyncio.sleep(chance.random() * 0.02)
        await send(writer, event("x"))
    await send(writer, data({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
    await send(writer, b"")


async def cut(url: str, number: int, key: str, chance: random.Random) -> None:
    """One stream on a connection of its own; of some only a part of the request is sent."""
    text = request(key, seed=number, max_tokens=50)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        writer.write(text if number % 4 else text[: chance.randrange(len(text))])
        async with asyncio.timeout(chance.random() * 0.15):
            while await reader.read(1000):
                pass
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()


async def cut_all(url: str, key: str) -> None:
    chance, numbers = random.Random(7), iter(range(_STREAMS))

    async def some() -> None:
        for number in numbers:
            await cut(url, number, key, chance)

    await asyncio.gather(*[some() for _ in range(_AT_ONCE)])


def held(pool: Replicas) -> tuple[int, int]:
    """Tasks, and open sockets less the two ends of each connection that is kept to an engine."""
    serving = FakeEngine.serve.__qualname__
    tasks = [task for task in asyncio.all_tasks() if serving not in repr(task.get_coro())]
    kept = sum(fake.open_connections for fake in pool.fakes)
    return len(tasks), sum(map(_is_socket, Path("/proc/self/fd").iterdir())) - 2 * kept


def _is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:
        # The folder itself, as it was listed.
        return False


def records_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.timeout(90)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sockets are counted as Linux shows them")
async def test_streams_that_are_cut_leave_no_slot_connection_or_task(start: Start, tmp_path: Path) -> None:
    path, log = tmp_path / "keys.yaml", tmp_path / "usage.jsonl"
    key = key_edits.create(path, "alice", Grant(limits=_LIMITS))
    sections = {
        "auth": {"keys_file": str(path)},
        "limits": {"max_in_flight": 30, "max_queued": 100, "queue_seconds": 5},
        "usage": {"file": str(log)},
    }
    async with replicas(start, 2, sections=sections, routing={"policy": "least_requests"}) as pool:
        for fake in pool.fakes:
            fake.behaviour = engine
        await pool.gateway.chat(key, stream=True)
        await pool.gateway.client.aclose()
        # For the gateway's end of that to be closed.
        await asyncio.sleep(0.2)
        await pool.clean()
        before = held(pool)

        await cut_all(pool.gateway.url, key)
        await pool.clean()

        await pool.gateway.until(lambda: held(pool) == before, 10)
        await pool.gateway.until(lambda: _charged(log) == pool.gateway.metric("gemma_gateway_requests_total"), 10)
        records = records_of(log)
        assert sum(record["finish"] == "aborted" for record in records) > _STREAMS / 2
        assert all(calls > _STREAMS / 8 for calls in pool.calls)
        await quotas_hold(pool.gateway, [record for record in records if record.get("model")])


def _charged(log: Path) -> int:
    return len(records_of(log))
