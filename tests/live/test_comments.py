"""While an engine is silent a stream shows signs of life, and a failure is told all the same."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fake_engine import Behaviour, Received, abort, begin, event, reply, send
from tests.live.conftest import Start
from tests.live.replicas import DONE, replicas

Writer = asyncio.StreamWriter

COMMENT = ": keep-alive\n\n"

#: A stream that was silent for so many seconds gets a comment, and how long these engines are silent.
PAUSE, SILENCE = 0.1, 0.5

COMMENTS = {"server": {"stream_comment_seconds": PAUSE}}


def late(behaviour: Behaviour) -> Behaviour:
    async def behave(request: Received, writer: Writer) -> None:
        await asyncio.sleep(SILENCE)
        await behaviour(request, writer)

    return behave


async def head_and_silence(_: Received, writer: Writer) -> None:
    """As vLLM dies in the middle of a long prefill."""
    await begin(writer)
    await asyncio.sleep(SILENCE)
    abort(writer)


async def silence_in_between(_: Received, writer: Writer) -> None:
    await begin(writer)
    await send(writer, event("a"))
    await asyncio.sleep(SILENCE)
    await send(writer, event("b") + DONE.encode())
    await send(writer, b"")


async def test_stream_gets_its_head_and_comments_until_the_first_event(start: Start) -> None:
    gateway = await start(**COMMENTS)
    gateway.engine.behaviour = late(gateway.engine.behaviour)

    answer = await gateway.chat(stream=True)

    comments = answer.text.count(COMMENT)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "x-request-id" in answer.headers
    assert comments >= 2
    assert answer.text.startswith(COMMENT * comments + "data: {")
    assert answer.text.endswith(DONE)
    await gateway.idle()


async def test_silence_between_two_events_gets_comments_too(start: Start) -> None:
    gateway = await start(**COMMENTS)
    gateway.engine.behaviour = silence_in_between

    answer = await gateway.chat(stream=True)

    comments = answer.text.count(COMMENT)
    assert comments >= 2
    assert answer.text == event("a").decode() + COMMENT * comments + event("b").decode() + DONE


@pytest.mark.parametrize("sections", [{}, COMMENTS], ids=["not asked for", "no stream"])
async def test_there_are_none_by_default_nor_where_there_is_no_stream(
    start: Start, sections: dict[str, dict[str, float]]
) -> None:
    gateway = await start(**sections)
    gateway.engine.behaviour = late(gateway.engine.behaviour)

    answer = await gateway.chat(stream=not sections)

    assert (answer.status_code, COMMENT in answer.text) == (200, False)


FAILURES: dict[str, tuple[Behaviour, str | None]] = {
    "answers 500": (reply(b'{"error":{"message":"secret"}}', 500), "engine_failed"),
    "is full": (reply(b"{}", 503, retry_after="9"), "overloaded"),
    "refuses the request": (reply(b'{"error":{"message":"too long","type":"BadRequestError","code":400}}', 400), None),
    "resets": (head_and_silence, "engine_failed"),
}


@pytest.mark.parametrize(("behaviour", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_failure_after_a_comment_is_an_error_event(start: Start, behaviour: Behaviour, code: str | None) -> None:
    gateway = await start(**COMMENTS)
    gateway.engine.behaviour = late(behaviour)

    answer = await gateway.chat(stream=True)

    assert answer.text.startswith(COMMENT)
    error = json.loads(answer.text.replace(COMMENT, "").removeprefix("data: "))["error"]
    assert (answer.status_code, error["code"], "secret" in answer.text) == (200, code, False)
    await gateway.idle()


async def test_another_replica_still_takes_over_after_a_comment(start: Start) -> None:
    async with replicas(start, 2, sections=COMMENTS) as pool:
        pool.fakes[0].behaviour = head_and_silence

        answer = await pool.gateway.chat(stream=True)

        assert answer.text.startswith(COMMENT)
        assert answer.text.replace(COMMENT, "").startswith("data: {")
        assert (answer.text.endswith(DONE), '"error"' in answer.text, pool.calls) == (True, False, [1, 1])
        await pool.clean()
