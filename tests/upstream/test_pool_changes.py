"""Replicas start, stop, come and go, and requests find those that are there or wait for one."""

from __future__ import annotations

import asyncio

from gateway.settings import EngineSettings
from gateway.upstream.policies import Hints
from gateway.upstream.pool import Engine
from gateway.upstream.probe import Probe
from gateway.upstream.replica import Replica
from tests import fake_engine
from tests.fake_engine import Received, begin, event, reply, send
from tests.upstream.pools import Told, Writer, busy, hang, pool


async def test_readiness_is_told_once_for_each_change() -> None:
    async with pool(2, probe_seconds=0.05) as made:
        await made.until(lambda: made.told == [True])
        made.fakes[0].healthy = False
        await made.until(lambda: made.replica(0).healthy is False)
        assert made.engine.ready
        made.fakes[1].healthy = False
        await made.until(lambda: not made.engine.ready)
        made.fakes[0].healthy = True
        await made.until(lambda: made.engine.ready)

        assert made.told == [True, False, True]


async def test_replica_that_is_not_ready_gets_nothing_and_keeps_no_connection() -> None:
    async with pool(2, probe_seconds=0.05) as made:
        made.fakes[0].healthy = False
        await made.until(lambda: made.replica(0).healthy is False)
        for _ in range(4):
            await made.ask()

        assert made.calls == [0, 4]
        await made.clean()


async def test_requests_wait_while_no_replica_is_ready() -> None:
    async with pool(1, probe_seconds=0.1, hold={"seconds": 5}) as made:
        made.fakes[0].healthy = False
        await made.until(lambda: not made.engine.ready)
        tasks = [asyncio.create_task(made.ask()) for _ in range(3)]
        await made.until(lambda: made.engine.held == 3)
        made.fakes[0].healthy = True

        assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 3
        assert (made.events, made.engine.held) == ({"held": 3}, 0)
        await made.clean()


async def test_wait_that_is_too_long_is_an_error() -> None:
    async with pool(1, hold={"seconds": 0.05}) as made:
        await made.kill(0)

        assert await made.ask() == (0, b"engine_unavailable")
        assert made.calls == [0]
        await made.clean()


async def test_who_has_somewhere_else_to_go_does_not_wait() -> None:
    async with pool(1, hold={"seconds": 30}) as made:
        await made.kill(0)

        assert await asyncio.wait_for(made.ask(hold=False), 2) == (0, b"engine_unavailable")
        assert made.events["held"] == 0


async def test_client_that_leaves_while_it_waits_makes_room() -> None:
    async with pool(1, hold={"seconds": 30, "max_requests": 1}) as made:
        await made.kill(0)
        waiting = asyncio.create_task(made.ask())
        await made.until(lambda: made.engine.held == 1)
        refused = await made.ask()
        waiting.cancel()
        await made.until(lambda: made.engine.held == 0)

        assert refused == (0, b"engine_unavailable")
        await made.clean()


async def test_request_that_meets_a_restart_waits_for_its_end() -> None:
    async with pool(1, hold={"seconds": 5}) as made:
        await made.ask()
        await made.kill(0)
        task = asyncio.create_task(made.ask())
        await made.until(lambda: made.engine.held == 1)
        await made.fakes[0].start(made.fakes[0].port)

        assert (await task)[0] == 200
        assert made.events == {"connect_failed": 1, "held": 1}


async def test_request_waits_for_the_only_replica_that_has_its_model() -> None:
    async with pool(2, hold={"seconds": 5}) as made:
        made.fakes[0].models = ("served", "adapter")
        made.replica(0).models = frozenset(made.fakes[0].models)
        await made.kill(0)
        task = asyncio.create_task(made.ask(model="adapter"))
        await made.until(lambda: made.engine.held == 1)
        await made.fakes[0].start(made.fakes[0].port)

        assert ((await task)[0], made.calls) == (200, [1, 0])
        await made.clean()


async def test_request_that_meets_a_stop_waits_for_the_start() -> None:
    async with pool(1, hold={"seconds": 5}) as made:
        normal = made.fakes[0].behaviour
        made.fakes[0].behaviour = reply(b"cannot schedule new futures after shutdown", 500)
        made.fakes[0].healthy = False
        task = asyncio.create_task(made.ask())
        await made.until(lambda: made.replica(0).seen_down > 1)
        made.fakes[0].behaviour, made.fakes[0].healthy = normal, True

        assert ((await task)[0], made.calls) == (200, [2])
        await made.clean()


async def test_engine_that_says_it_stops_and_is_ready_has_the_last_word() -> None:
    async with pool(1, hold={"seconds": 5}) as made:
        made.fakes[0].behaviour = reply(b"cannot schedule new futures after shutdown", 500)

        assert await made.ask() == (500, b"cannot schedule new futures after shutdown")
        assert made.calls == [1]
        await made.clean()


async def test_engine_that_nobody_watches_is_asked_and_never_waited_for() -> None:
    async with fake_engine.running() as fake:
        engine = Engine("default", EngineSettings(url=fake.url))
        with await engine.send(b"GET", "/health") as answer:
            await answer.read_all()
        looked = await engine.look()
        await engine.aclose()

    assert (answer.status, looked, engine.ready) == (200, True, True)


async def test_replicas_come_and_go_while_requests_run() -> None:
    found = Told()
    async with pool(3, found_by=found) as made:
        first, second, third = made.fakes
        go_on = asyncio.Event()

        async def slow(_: Received, writer: Writer) -> None:
            await begin(writer)
            await send(writer, event("a"))
            await go_on.wait()
            await send(writer, b"")

        first.behaviour = slow
        found.tell(first)
        await made.until(lambda: len(made.engine.replicas) == 1 and made.engine.ready)
        running = asyncio.create_task(made.ask(stream=True))
        await made.until(lambda: first.running == 1)
        found.tell(second, third)
        await made.until(lambda: len(made.engine.replicas) == 2 and made.engine.ready)
        after = [(await made.ask())[0] for _ in range(4)]
        go_on.set()

        assert after == [200] * 4
        assert made.calls[0] == 1
        assert await running == (200, event("a"))
        await made.clean()


async def test_new_replica_gets_nothing_before_it_is_known_to_be_ready() -> None:
    found = Told()
    async with pool(2, found_by=found) as made:
        ready, loading = made.fakes
        loading.healthy = False
        found.tell(ready)
        await made.until(lambda: made.engine.ready)
        found.tell(ready, loading)
        await made.until(lambda: len(made.engine.replicas) == 2)
        for _ in range(4):
            await made.ask()

        assert made.calls == [4, 0]


async def test_requests_wait_for_a_pool_that_is_scaled_to_zero() -> None:
    found = Told()
    async with pool(1, found_by=found, hold={"seconds": 5}) as made:
        found.tell()
        await made.until(lambda: made.told[-1:] == [False])
        task = asyncio.create_task(made.ask())
        await made.until(lambda: made.engine.held == 1)
        found.tell(*made.fakes)

        assert (await task)[0] == 200


async def test_replica_that_comes_back_starts_anew() -> None:
    found = Told()
    async with pool(1, found_by=found, ejection={"failures": 1}) as made:
        found.tell(*made.fakes)
        await made.until(lambda: made.engine.ready)
        made.fakes[0].behaviour = reply(b"{}", 500)
        await made.ask()
        before = made.replica(0).ejection.troubled
        found.tell()
        await made.until(lambda: not made.engine.replicas)
        found.tell(*made.fakes)
        await made.until(lambda: made.engine.ready)

        assert (before, made.replica(0).ejection.troubled) == (True, False)


async def test_models_are_known_once_a_replica_is_ready() -> None:
    async with pool(1) as made:
        assert made.replica(0).models == frozenset({"served"})


async def test_engine_that_does_not_say_what_it_serves_is_ready_all_the_same() -> None:
    async with fake_engine.running() as fake:
        fake.models = ("a" * 5_000_000,)
        replica = Replica(fake.url, EngineSettings(url=fake.url))

        assert await Probe(replica, 1, lambda *_: None).look()
        assert replica.models is None
        replica.retire()


async def test_load_of_others_steers_requests_elsewhere() -> None:
    routing = {"policy": "least_requests", "gauges_seconds": 0.02}
    async with pool(2, routing=routing) as made:
        made.fakes[0].metrics = b"vllm:num_requests_running 9\nvllm:num_requests_waiting 0\n"
        await made.until(lambda: made.replica(0).load == 9)
        for _ in range(3):
            await made.ask()

        assert made.calls == [0, 3]


async def test_requests_in_flight_count_at_once_for_whom_they_are() -> None:
    async with pool(2, routing={"policy": "least_requests"}) as made:
        for fake in made.fakes:
            fake.behaviour = hang
        tasks = [asyncio.create_task(made.ask()) for _ in range(6)]
        await made.until(lambda: sum(fake.running for fake in made.fakes) == 6)

        assert [replica.in_flight for replica in made.engine.replicas.values()] == [3, 3]
        for task in tasks:
            task.cancel()
        await made.clean()


async def test_hints_are_asked_for_only_where_there_is_a_choice() -> None:
    asked: list[None] = []

    def hints() -> Hints:
        asked.append(None)
        return Hints(session=b"me")

    async with pool(1, routing={"policy": "session"}) as alone, pool(3, routing={"policy": "session"}) as several:
        await alone.ask(hints=hints)
        none = len(asked)
        for _ in range(4):
            await several.ask(hints=hints)

        assert (none, len(asked)) == (0, 4)
        assert sorted(several.calls) == [0, 0, 4]


async def test_full_replica_is_no_failure() -> None:
    async with pool(1, ejection={"failures": 1}) as made:
        made.fakes[0].behaviour = busy()
        await made.ask()

        assert made.replica(0).ejection.troubled is False
        assert made.events == {"busy": 1}
