"""A replica is looked at often while that can change something, and seldom else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.settings import EngineSettings
from gateway.upstream import probe
from gateway.upstream.probe import Health, Probe, health, models
from gateway.upstream.replica import Replica
from tests import fake_engine
from tests.fake_engine import FakeEngine


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine.running() as engine:
        yield engine


@pytest.fixture
async def replica(engine: FakeEngine) -> AsyncIterator[Replica]:
    replica = Replica(engine.url, EngineSettings(url=engine.url))
    yield replica
    replica.retire()


async def test_health_is_what_the_engine_says(engine: FakeEngine, replica: Replica) -> None:
    found = [await health(replica)]
    engine.healthy = False
    found.append(await health(replica))
    engine.die()
    found.append(await health(replica))

    assert found == [Health.READY, Health.UNREADY, Health.UNREADY]


async def test_models_are_what_the_engine_lists_or_unknown(engine: FakeEngine, replica: Replica) -> None:
    engine.models = ("served", "adapter")
    found = [await models(replica)]
    engine.die()
    found.append(await models(replica))

    assert found == [frozenset({"served", "adapter"}), None]


async def test_models_are_asked_for_when_it_becomes_ready_and_not_at_each_look(
    engine: FakeEngine, replica: Replica
) -> None:
    looks = Probe(replica, 60, lambda *_: None)
    await looks.look()
    replica.healthy = True
    engine.models = ("new",)
    await looks.look()
    before = replica.models
    replica.healthy = False
    await looks.look()

    assert (before, replica.models) == (frozenset({"served"}), frozenset({"new"}))


async def test_one_silence_is_excused_where_two_are_not(
    engine: FakeEngine, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.05)
    engine.health_seconds = 0.2
    replica.healthy = True
    looks = Probe(replica, 1, lambda *_: None)

    assert [await looks.look(), await looks.look()] == [True, False]


async def test_looks_are_soon_and_then_ever_rarer_while_it_is_not_ready(engine: FakeEngine, replica: Replica) -> None:
    engine.healthy = False
    looks = Probe(replica, 2.0, lambda *_: None)
    pauses = []
    for _ in range(9):
        await looks.look()
        pauses.append(looks._pause())
    engine.healthy = True
    await looks.look()

    assert all(0.05 * 2**n <= min(pause, 1.9) <= 0.1 * 2**n for n, pause in enumerate(pauses[:5]))
    assert pauses[-2:] == [2.0, 2.0]
    assert looks._pause() == 2.0


async def test_doubt_has_it_looked_at_soon(replica: Replica) -> None:
    told: list[bool] = []
    task = asyncio.create_task(Probe(replica, 60, lambda _, healthy: told.append(healthy)).run())
    async with asyncio.timeout(3):
        while len(told) < 3:
            await asyncio.sleep(0.01)
            if told:
                replica.doubt()
    task.cancel()

    assert told == [True, True, True]
