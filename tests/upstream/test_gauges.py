"""What others send a replica counts, by its own gauges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.settings import EngineSettings
from gateway.upstream import gauges
from gateway.upstream.gauges import Gauges, Reading, parse
from gateway.upstream.replica import Replica
from tests import fake_engine
from tests.fake_engine import FakeEngine, Received, reply

PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 3.0
vllm:num_requests_running{engine="1",model_name="a} b"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 90.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 1.0
vllm:num_requests_waiting{engine="1"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.97
"""


def test_ranks_are_summed_and_the_fullest_cache_counts() -> None:
    assert parse(PAGE) == Gauges(7, 3, 0.97)


def test_sample_without_labels_and_without_an_end_of_line_is_read() -> None:
    assert parse(b"vllm:num_requests_waiting 2\nvllm:num_requests_running 1") == Gauges(1, 2, 0)


@pytest.mark.parametrize("page", [b"", b"<html>", b"vllm:num_requests_running 1\n", PAGE.replace(b" 4.0", b" x")[:170]])
def test_page_without_the_gauges_says_nothing(page: bytes) -> None:
    assert parse(page) is None


ELSEWHERE = [
    (Gauges(4, 0, 0.5), 4, 0.0),
    (Gauges(4, 0, 0.5), 1, 3.0),
    (Gauges(4, 0, 0.5), 9, 0.0),
    (Gauges(4, 2, 0.5), 6, 2.0),
    (Gauges(8, 0, 0.96), 8, 2.0),
    (Gauges(1, 0, 0.96), 1, 1.0),
]


@pytest.mark.parametrize(("reading", "own", "elsewhere"), ELSEWHERE)
def test_load_is_what_others_send_and_what_stands_in_the_way(reading: Gauges, own: int, elsewhere: float) -> None:
    assert reading.elsewhere(own) == elsewhere


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine.running() as engine:
        yield engine


def replica_of(engine: FakeEngine) -> Replica:
    replica = Replica(engine.url, EngineSettings(url=engine.url))
    replica.healthy = True
    return replica


def reading_of(replica: Replica, seconds: float = 0.01) -> Reading:
    return Reading(replica, seconds, lambda: True)


async def test_reading_corrects_the_load(engine: FakeEngine) -> None:
    engine.metrics = b"vllm:num_requests_running 5\nvllm:num_requests_waiting 0\n"
    replica = replica_of(engine)
    replica.in_flight = 2

    await reading_of(replica).once()

    assert (replica.load, engine.scrapes) == (5, [gauges.FILTERED])
    replica.retire()


async def test_last_reading_is_forgotten_once_it_is_old(engine: FakeEngine) -> None:
    engine.metrics = b"vllm:num_requests_running 5\nvllm:num_requests_waiting 0\n"
    replica = replica_of(engine)
    reading = reading_of(replica)
    await reading.once()
    engine.metrics = b""
    for _ in range(gauges.FORGET_AFTER - 1):
        await reading.once()
    kept = replica.load

    await reading.once()

    assert (kept, replica.load) == (5, 0)
    replica.retire()


async def test_engine_that_cannot_filter_is_asked_for_the_whole_page(engine: FakeEngine) -> None:
    replica = replica_of(engine)
    reading = reading_of(replica)
    await reading.once()
    engine.metrics = PAGE
    await reading.once()
    await reading.once()

    assert engine.scrapes == [gauges.FILTERED, gauges.WHOLE, gauges.WHOLE]
    replica.retire()


async def test_engine_without_gauges_is_left_alone_for_a_while(engine: FakeEngine) -> None:
    replica = replica_of(engine)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reading_of(replica).run(), 0.4)

    assert len(engine.scrapes) == gauges.FORGET_AFTER
    assert replica.load == 0
    replica.retire()


async def test_readings_take_no_part_in_what_is_in_flight(engine: FakeEngine) -> None:
    replica = replica_of(engine)

    async def look(request: Received, writer: asyncio.StreamWriter) -> None:
        await reply(b"%d" % replica.in_flight)(request, writer)

    engine.behaviour = look

    assert await replica.get("/anything") == (200, b"0")
    replica.retire()
