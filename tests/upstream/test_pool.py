"""Whatever a replica does before the first byte, another answers where that is safe, and nothing stays behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from gateway.errors import EngineFailedError
from tests.fake_engine import Behaviour, FakeEngine, Received, abort, begin, event, reply, send
from tests.upstream.pools import (
    Pool,
    Writer,
    busy,
    garbage,
    hang,
    hang_up,
    hang_up_after_an_event,
    hang_up_after_the_head,
    pool,
)

STOPPING = reply(b"cannot schedule new futures after shutdown", 500)
WARMING_UP = reply(b'{"error":{"code":"engine_unavailable"}}', 503)


@dataclass(frozen=True)
class Fault:
    """What one replica of two does; what the client gets; the calls that replica and the other got; and what was told.

    A status of 0 is an error of ours.
    """

    behaviour: Behaviour
    status: int
    calls: tuple[int, int]
    events: dict[str, int]
    stream: bool = False
    healthy: bool = True
    code: bytes = b""


#: A kept connection may have been stale, so that a call that breaks is made once more on a fresh one.
FAULTS = {
    "hangs up before the head": Fault(hang_up, 200, (2, 1), {"retry": 1}),
    "hangs up after a stream's head": Fault(hang_up_after_the_head, 200, (1, 1), {"retry": 1}, stream=True),
    "speaks no HTTP": Fault(garbage, 200, (1, 1), {"retry": 1}),
    "is full": Fault(busy(), 200, (1, 1), {"busy": 1, "retry": 1}),
    "is full by rate": Fault(busy(7, 429), 200, (1, 1), {"busy": 1, "retry": 1}),
    "is shutting down": Fault(STOPPING, 200, (1, 1), {"retry": 1}, healthy=False),
    "is warming up": Fault(WARMING_UP, 200, (1, 1), {"retry": 1}, healthy=False),
    "fails": Fault(reply(b"{}", 500), 500, (1, 0), {}),
    "refuses the request": Fault(reply(b"{}", 400), 400, (1, 0), {}),
    "does not know the model": Fault(reply(b"{}", 404), 404, (1, 0), {}),
    "finds the headers too large": Fault(reply(b"{}", 431), 431, (1, 0), {}),
    "never answers": Fault(hang, 0, (1, 0), {}, code=b"engine_timeout"),
    "breaks after the first event": Fault(hang_up_after_an_event, 0, (1, 0), {}, stream=True, code=b"engine_failed"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_fault_of_one_replica_is_anothers_turn_where_that_is_safe(fault: Fault) -> None:
    async with pool(2, first_byte_seconds=0.2) as made:
        first = await _next(made)
        made.fakes[first].behaviour = fault.behaviour

        status, body = await made.ask(stream=fault.stream)

        assert status == fault.status
        assert status != 0 or body == fault.code
        assert (made.calls[first], made.calls[1 - first]) == fault.calls
        assert made.events == fault.events
        assert made.replica(first).healthy is fault.healthy
        await made.clean()


async def _next(made: Pool) -> int:
    """Which of two replicas gets the next request, by turns. None have been counted until then."""
    await made.ask()
    after = made.calls.index(0)
    for fake in made.fakes:
        fake.requests.clear()
    return after


async def test_replica_that_refuses_connections_is_passed_over_and_then_known_to_be_down() -> None:
    async with pool(2) as made:
        first = await _next(made)
        await made.kill(first)

        statuses = [(await made.ask())[0] for _ in range(4)]

        assert statuses == [200] * 4
        assert made.events == {"connect_failed": 1, "retry": 1}
        assert made.replica(first).healthy is False
        await made.clean()


async def test_failures_in_a_row_eject_and_a_good_trial_restores() -> None:
    async with pool(2, ejection={"failures": 2}) as made:
        first = await _next(made)
        normal = made.fakes[first].behaviour
        made.fakes[first].behaviour = reply(b"{}", 500)
        statuses = [(await made.ask())[0] for _ in range(6)]
        ejected_after = made.calls[first]

        made.fakes[first].behaviour = normal
        made.pass_time(first)
        later = [(await made.ask())[0] for _ in range(4)]

        assert (sorted(statuses), ejected_after) == ([200] * 4 + [500] * 2, 2)
        assert (later, made.calls[first]) == ([200] * 4, 4)
        assert made.events == {"ejected": 1, "restored": 1}
        await made.clean()


async def test_only_one_request_at_a_time_tries_a_replica_that_was_ejected() -> None:
    async with pool(2, ejection={"failures": 1}) as made:
        first = await _next(made)
        made.fakes[first].behaviour = reply(b"{}", 500)
        await made.ask()
        made.fakes[first].behaviour = hang
        made.pass_time(first)
        tasks = [asyncio.create_task(made.ask()) for _ in range(6)]
        await made.until(lambda: sum(task.done() for task in tasks) == 5)

        assert made.calls[first] == 2
        for task in tasks:
            task.cancel()
        await made.clean()
        assert made.replica(first).ejection.trial is False


async def test_streams_that_break_in_the_middle_eject_too() -> None:
    async with pool(2, ejection={"failures": 2, "seconds": 5}) as made:
        first = await _next(made)
        made.fakes[first].behaviour = hang_up_after_an_event
        for _ in range(4):
            await made.ask(stream=True)

        assert made.events == {"ejected": 1}
        await made.clean()


async def test_client_that_leaves_says_nothing_of_the_replica() -> None:
    async with pool(1, ejection={"failures": 1}) as made:
        made.fakes[0].behaviour = hang
        task = asyncio.create_task(made.ask())
        await made.until(lambda: made.fakes[0].running == 1)
        task.cancel()

        await made.clean()
        assert made.events == {}


async def test_pool_whose_replicas_all_fail_still_asks_them() -> None:
    async with pool(2, ejection={"failures": 1}) as made:
        for fake in made.fakes:
            fake.behaviour = reply(b"{}", 500)

        statuses = [(await made.ask())[0] for _ in range(6)]

        assert (statuses, sum(made.calls)) == ([500] * 6, 6)
        assert made.events == {"ejected": 2}


async def test_request_that_kills_engines_meets_two_of_them_at_most() -> None:
    async with pool(4, retries={"attempts": 3}) as made:
        for fake in made.fakes:
            fake.behaviour = deadly(fake)

        status, code = await made.ask()

        assert (status, code) == (0, b"engine_failed")
        assert sum(made.calls) == 2
        await made.clean()


def deadly(fake: FakeEngine) -> Behaviour:
    async def behave(_: Received, __: Writer) -> None:
        fake.die()

    return behave


async def test_replica_that_is_full_is_passed_over_until_its_retry_after() -> None:
    async with pool(2) as made:
        first = await _next(made)
        made.fakes[first].behaviour = busy(30)

        statuses = [(await made.ask())[0] for _ in range(5)]
        calls = made.calls[first]
        made.pass_time(first)
        await made.ask()
        await made.ask()

        assert (statuses, calls) == ([200] * 5, 1)
        assert made.calls[first] == 2


async def test_where_all_are_full_the_reply_says_the_shortest_wait() -> None:
    async with pool(3) as made:
        for fake, seconds in zip(made.fakes, (9, 4, 6), strict=True):
            fake.behaviour = busy(seconds)

        with await made.engine.send(b"POST", "/v1/chat/completions", (b"{}",)) as answer:
            body = await answer.read_all()

        assert (answer.status, answer.headers[b"retry-after"], body) == (503, b"4", b'{"error":"busy"}')
        assert made.calls == [1, 1, 1]
        await made.clean()


async def test_only_replica_hands_out_its_refusal_as_it_is() -> None:
    async with pool(1) as made:
        made.fakes[0].behaviour = busy(60)

        with await made.engine.send(b"POST", "/v1/chat/completions", (b"{}",)) as answer:
            seen: list[bytes] = []
            await answer.relay(seen.append)

        assert (answer.status, answer.headers[b"retry-after"], seen) == (503, b"60", [b'{"error":"busy"}'])
        assert made.calls == [1]


@pytest.mark.parametrize(("attempts", "calls"), [(0, 1), (1, 2), (9, 4)])
async def test_as_many_further_replicas_are_tried_as_are_allowed(attempts: int, calls: int) -> None:
    async with pool(4, retries={"attempts": attempts}) as made:
        for fake in made.fakes:
            fake.behaviour = busy()

        assert (await made.ask())[0] == 503
        assert sum(made.calls) == calls
        await made.clean()


async def test_budget_bounds_the_retries_of_a_failing_pool() -> None:
    async with pool(2, retries={"budget": 0}, ejection={"failures": 1000}) as made:
        for fake in made.fakes:
            fake.behaviour = garbage

        for _ in range(20):
            await made.ask()

        assert (sum(made.calls), made.events) == (30, {"retry": 10})
        await made.clean()


async def test_replica_that_lists_the_model_is_preferred() -> None:
    async with pool(2) as made:
        made.replica(0).models = frozenset({"served", "adapter"})

        for _ in range(3):
            await made.ask(model="adapter")
        for _ in range(2):
            await made.ask(model="unknown")

        assert made.calls == [4, 1]


async def test_replica_that_does_not_list_the_model_gets_no_second_try() -> None:
    async with pool(2) as made:
        made.replica(0).models = frozenset({"adapter"})
        made.fakes[0].behaviour = busy()

        assert (await made.ask(model="adapter"))[0] == 503
        assert made.calls == [1, 0]


async def test_kept_connection_is_used_again_the_latest_first() -> None:
    async with pool(1) as made:
        for _ in range(5):
            await made.ask()

        assert made.fakes[0].connections == 1
        await made.clean()


async def test_stream_is_handed_out_once_its_first_bytes_have_come() -> None:
    async with pool(1) as made:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(_: Received, writer: Writer) -> None:
            await begin(writer)
            begun.set()
            await go_on.wait()
            await send(writer, event("a"))
            await send(writer, b"")

        made.fakes[0].behaviour = slow
        task = asyncio.create_task(made.ask(stream=True))
        await begun.wait()
        await asyncio.sleep(0.02)
        waiting = made.engine.in_flight
        go_on.set()

        assert (waiting, await task) == (1, (200, event("a")))
        await made.clean()


async def test_answer_that_takes_too_long_in_all_is_a_timeout() -> None:
    async def drip(_: Received, writer: Writer) -> None:
        await begin(writer)
        while True:
            await send(writer, event("a"))
            await asyncio.sleep(0.02)

    async with pool(2, total_seconds=0.2) as made:
        for fake in made.fakes:
            fake.behaviour = drip

        assert await made.ask(stream=True) == (0, b"engine_timeout")
        assert sum(made.calls) == 1
        await made.clean()


async def test_long_fault_is_read_in_part_and_its_connection_dropped() -> None:
    async with pool(1) as made:
        made.fakes[0].behaviour = reply(b"x" * 1_000_000, 500)

        status, body = await made.ask()

        assert status == 500
        assert 0 < len(body) < 1_000_000
        await made.clean()


async def test_reply_says_which_replica_was_chosen_and_why() -> None:
    async with pool(1) as made, pool(2) as several:
        with await made.engine.send(b"GET", "/health") as answer:
            alone = answer.choice
        with await several.engine.send(b"GET", "/health") as answer:
            chosen = answer.choice

        assert (alone.replica, alone.reason) == (made.replica(0), "the only replica")
        assert chosen.replica in several.engine.replicas.values()
        assert chosen.reason != alone.reason


async def test_abort_of_every_connection_in_mid_stream_leaves_nothing() -> None:
    async with pool(2) as made:

        async def endless(_: Received, writer: Writer) -> None:
            await begin(writer)
            await send(writer, event("a"))
            await asyncio.sleep(30)

        got: list[bytes] = []

        async def listen() -> None:
            with await made.engine.send(b"POST", "/v1/chat/completions", (b"{}",)) as answer:
                got.append(await answer.read())
                await answer.read_all()

        for fake in made.fakes:
            fake.behaviour = endless
        tasks = [asyncio.create_task(listen()) for _ in range(20)]
        await made.until(lambda: len(got) == 20)
        for fake in made.fakes:
            for writer in list(fake._writers):
                abort(writer)

        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [EngineFailedError] * 20
        await made.clean()
