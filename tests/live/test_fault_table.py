"""Each way in which an engine can fail, before one replica and before two: what the client sees, and who was asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.fake_engine import (
    Behaviour,
    Received,
    abort,
    begin,
    choice,
    compact,
    event,
    reply,
    send,
    streamed,
)
from tests.live.conftest import Start
from tests.live.replicas import Replicas, Streams, error_code, replicas, stream

Writer = asyncio.StreamWriter

ANSWER = compact({"id": "chatcmpl-1", "model": "served", "choices": [choice("abc")]})
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


async def reset(_: Received, writer: Writer) -> None:
    abort(writer)


async def reset_in_the_head(_: Received, writer: Writer) -> None:
    await written(writer, b"HTTP/1.1 200 OK\r\ncontent-ty")
    abort(writer)


async def reset_after_the_head(request: Received, writer: Writer) -> None:
    await head(request, writer)
    abort(writer)


async def reset_in_the_body(request: Received, writer: Writer) -> None:
    await half(request, writer)
    abort(writer)


async def close_in_the_body(request: Received, writer: Writer) -> None:
    await half(request, writer)
    writer.close()


async def half_a_chunk(request: Received, writer: Writer) -> None:
    """A chunk is announced that is longer than what comes of it."""
    kind = b"text/event-stream" if streamed(request) else b"application/json"
    await written(writer, b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
    if streamed(request):
        await send(writer, event("a"))
    await written(writer, b'100\r\ndata: {"id":"chat')
    writer.close()


async def no_chunk(request: Received, writer: Writer) -> None:
    """What should be a chunk's length is none."""
    await head(request, writer)
    await written(writer, b"xyz\r\n" if streamed(request) else b"")
    abort(writer)


async def hang(_: Received, __: Writer) -> None:
    await asyncio.sleep(30)


async def hang_after_the_head(request: Received, writer: Writer) -> None:
    await head(request, writer)
    await asyncio.sleep(30)


async def hang_in_the_body(request: Received, writer: Writer) -> None:
    await half(request, writer)
    await asyncio.sleep(30)


async def garbage(_: Received, writer: Writer) -> None:
    await written(writer, b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


async def slow_head(request: Received, writer: Writer) -> None:
    """A byte now and then keeps nobody waiting for ever."""
    for at in range(len(JSON_HEAD)):
        await written(writer, JSON_HEAD[at : at + 1])
        await asyncio.sleep(0.05)


async def head_in_pieces(request: Received, writer: Writer) -> None:
    if streamed(request):
        await in_pieces(
            writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await send(writer, event("abc") + b"data: [DONE]\n\n")
        await send(writer, b"")
    else:
        await in_pieces(writer, JSON_HEAD % len(ANSWER) + ANSWER)


def wrong_length(difference: int) -> Behaviour:
    """More, or less, is announced than comes before the connection is closed."""

    async def behave(request: Received, writer: Writer) -> None:
        body = event("abc") if streamed(request) else ANSWER
        kind = b"text/event-stream" if streamed(request) else b"application/json"
        head = JSON_HEAD.replace(b"application/json", kind) % (len(body) + difference)
        await written(writer, head + body)
        writer.close()

    return behave


async def head(request: Received, writer: Writer) -> None:
    if streamed(request):
        await begin(writer)
    else:
        await written(writer, JSON_HEAD % len(ANSWER))
    await asyncio.sleep(0.01)


async def half(request: Received, writer: Writer) -> None:
    """A whole event and half of one, or half a document."""
    await head(request, writer)
    if streamed(request):
        await send(writer, event("a") + event("b")[:20])
    else:
        await written(writer, ANSWER[:20])
    await asyncio.sleep(0.01)


async def written(writer: Writer, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def in_pieces(writer: Writer, data: bytes) -> None:
    for at in range(0, len(data), 16):
        await written(writer, data[at : at + 16])
        await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Seen:
    """Status, code of the error that the answer is or ends in, and how often each engine was asked."""

    status: int
    code: str | None
    calls: list[int]
    retry_after: str | None = None


def whole(*calls: int) -> Seen:
    return Seen(200, None, list(calls))


def failed(*calls: int) -> Seen:
    return Seen(502, "engine_failed", list(calls))


def late(*calls: int) -> Seen:
    return Seen(504, "engine_timeout", list(calls))


def full(retry_after: str, *calls: int) -> Seen:
    return Seen(503, "overloaded", list(calls), retry_after)


def ended(code: str, *calls: int) -> Seen:
    """A stream that has begun, and ends in an error event."""
    return Seen(200, code, list(calls))


BUSY = b'{"error":{"message":"secret"}}'

#: What the first engine does; what is seen where another stands beside it, and where none does.
#: A request on a kept connection that is closed without a byte is sent once more to the same engine.
EITHER: dict[str, tuple[Behaviour, Seen, Seen]] = {
    "resets before the head": (reset, whole(2, 1), failed(2)),
    "resets in the head": (reset_in_the_head, whole(1, 1), failed(1)),
    "sends garbage": (garbage, whole(1, 1), failed(1)),
    "hangs before the head": (hang, late(1, 0), late(1)),
    "sends its head too slowly": (slow_head, late(1, 0), late(1)),
    "sends its head in pieces": (head_in_pieces, whole(1, 0), whole(1)),
    "hangs after the head": (hang_after_the_head, late(1, 0), late(1)),
    "answers 500": (reply(BUSY, 500), failed(1, 0), failed(1)),
    "answers 503 and says how long": (reply(BUSY, 503, retry_after="9"), whole(1, 1), full("9", 1)),
    "answers 429 and says how long": (reply(BUSY, 429, retry_after="3"), whole(1, 1), full("3", 1)),
    "answers 429": (reply(BUSY, 429), whole(1, 1), full("2", 1)),
}

#: The same where no stream is wanted: an engine that has sent its head has done all of the work.
PLAIN: dict[str, tuple[Behaviour, Seen, Seen]] = {
    "resets after the head": (reset_after_the_head, failed(1, 0), failed(1)),
    "resets in the body": (reset_in_the_body, failed(1, 0), failed(1)),
    "closes in the body": (close_in_the_body, failed(1, 0), failed(1)),
    "sends half a chunk": (half_a_chunk, failed(1, 0), failed(1)),
    "hangs in the body": (hang_in_the_body, late(1, 0), late(1)),
    "announces more than it sends": (wrong_length(10), failed(1, 0), failed(1)),
    "announces less than it sends": (wrong_length(-10), failed(1, 0), failed(1)),
}

#: And where one is: its head comes before the first token, and another replica can still take over.
STREAMED: dict[str, tuple[Behaviour, Seen, Seen]] = {
    "resets after the head": (reset_after_the_head, whole(1, 1), failed(1)),
    "sends no chunk": (no_chunk, whole(1, 1), failed(1)),
    "resets in the body": (reset_in_the_body, ended("engine_failed", 1, 0), ended("engine_failed", 1)),
    "closes in the body": (close_in_the_body, ended("engine_failed", 1, 0), ended("engine_failed", 1)),
    "sends half a chunk": (half_a_chunk, ended("engine_failed", 1, 0), ended("engine_failed", 1)),
    "hangs in the body": (hang_in_the_body, ended("engine_timeout", 1, 0), ended("engine_timeout", 1)),
    "announces more than it sends": (wrong_length(10), ended("engine_failed", 1, 0), ended("engine_failed", 1)),
    "announces less than it sends": (wrong_length(-10), ended("engine_failed", 1, 0), ended("engine_failed", 1)),
}

ROWS = [
    pytest.param(behaviour, seen, stream, id=f"{'stream' if stream else 'plain'}, {len(seen.calls)}: {name}")
    for table, kinds in ((EITHER, (False, True)), (PLAIN, (False,)), (STREAMED, (True,)))
    for name, (behaviour, *both) in table.items()
    for stream in kinds
    for seen in both
]


async def seen(pool: Replicas, *, stream: bool) -> Seen:
    answer = await pool.gateway.chat(stream=stream)
    assert "secret" not in answer.text
    return Seen(answer.status_code, error_code(answer), pool.calls, answer.headers.get("retry-after"))


@pytest.mark.parametrize(("behaviour", "expected", "stream"), ROWS)
async def test_client_hears_the_truth_and_nothing_stays_behind(
    start: Start, behaviour: Behaviour, expected: Seen, stream: bool
) -> None:
    async with replicas(start, len(expected.calls), first_byte_seconds=0.2, idle_seconds=0.2) as pool:
        pool.fakes[0].behaviour = behaviour

        assert await seen(pool, stream=stream) == expected

        await pool.clean()


@pytest.mark.parametrize("stream", [False, True])
async def test_engine_that_refuses_connections_is_passed_over_or_waited_for(start: Start, stream: bool) -> None:
    async with replicas(start, 2) as pool:
        await pool.die(0)
        assert await seen(pool, stream=stream) == whole(0, 1)
        await pool.clean()

    async with replicas(start, 1) as alone:
        await alone.die(0)
        assert await seen(alone, stream=stream) == Seen(503, "engine_unavailable", [0], "2")
        await alone.clean()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_comes_after_an_answer_that_was_too_long_is_not_taken_for_the_next(
    start: Start, stream: bool
) -> None:
    async with replicas(start, 1) as pool:
        normal = pool.fakes[0].behaviour

        async def too_much(request: Received, writer: Writer) -> None:
            await normal(request, writer)
            await asyncio.sleep(0.02)
            await written(writer, JSON_HEAD % 2 + b"{}")

        pool.fakes[0].behaviour = too_much
        for calls in range(1, 4):
            assert await seen(pool, stream=stream) == whole(calls)
            await pool.gateway.until(lambda: pool.fakes[0].running == 0)
        await pool.clean()


def slow(seconds: float, go_on: Callable[[], bool] = lambda: True) -> Behaviour:
    """A stream of ten events over some seconds."""

    async def behave(_: Received, writer: Writer) -> None:
        await begin(writer)
        for text in "abcdefghij":
            await send(writer, event(text))
            await asyncio.sleep(seconds / 10)
        await send(writer, b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


async def begun(pool: Replicas, count: int) -> None:
    await pool.gateway.until(lambda: sum(fake.running for fake in pool.fakes) >= count, 15)


def _code(answer: bytes) -> str | None:
    """The code of the error that a stream ends in, None where it is whole."""
    if b"data: [DONE]" in answer:
        return None
    return str(json.loads(answer.rsplit(b"data: ", 1)[1].split(b"\n\n")[0])["error"]["code"])


async def test_engine_that_is_killed_under_200_streams_breaks_its_own_and_no_other(start: Start) -> None:
    async with replicas(start, 2, probe_seconds=0.1, ejection={"seconds": 0.1}) as pool:
        for fake in pool.fakes:
            fake.behaviour = slow(1)
        answers = asyncio.gather(*[stream(pool.gateway.url) for _ in range(200)])
        await begun(pool, 200)
        await asyncio.sleep(0.2)
        broken = pool.fakes[0].running

        pool.fakes[0].die()
        codes = Counter(_code(answer) for answer in await answers)
        await pool.fakes[0].start(pool.fakes[0].port)
        await pool.gateway.until(lambda: pool.engine.usable == 2)
        after = [await seen(pool, stream=True) for _ in range(2)]

        assert broken == 100
        assert codes == {"engine_failed": broken, None: 200 - broken}
        assert [each.code for each in after] == [None, None]
        assert pool.calls == [101, 101]
        await pool.clean()


async def test_engine_that_is_killed_before_the_first_tokens_of_200_streams_breaks_none(start: Start) -> None:
    """As long as there is a budget for retries."""
    async with replicas(start, 2, probe_seconds=0.1, retries={"budget": 1}) as pool:
        pool.fakes[0].behaviour = hang
        answers = asyncio.gather(*[stream(pool.gateway.url) for _ in range(200)])
        await pool.gateway.until(lambda: pool.fakes[0].running == 100, 15)

        pool.fakes[0].die()
        codes = Counter(_code(answer) for answer in await answers)

        assert (codes, pool.calls) == ({None: 200}, [100, 200])
        await pool.clean()


async def test_only_engine_that_is_restarted_under_200_streams_is_waited_for(start: Start) -> None:
    async with replicas(start, 1, probe_seconds=0.1, hold={"seconds": 10}) as pool:
        pool.fakes[0].behaviour = slow(1.5)
        streams = Streams(pool.gateway.url, 200)
        await begun(pool, 150)

        await pool.fakes[0].restart()
        await streams.stop()

        assert streams.broken == []
        assert streams.whole >= 350
        # Told so by the engine, or known from its probe: either way there was nobody to ask for a while.
        held = pool.gateway.metric("gemma_gateway_engine_events_total", event="held")
        assert pool.fakes[0].refused + held > 0
        await pool.clean()
