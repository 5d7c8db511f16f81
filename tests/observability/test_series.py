"""The gateway's series are there before anything has happened, and tell streams from other answers."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from gateway import errors
from gateway.access.admission import DISPLACED, QUEUE_DEADLINE, QUEUE_FULL
from gateway.metrics import Metrics
from tests.fake_engine import Received, begin, completion, event, send
from tests.live.conftest import Running, Start, start
from tests.live.test_rolling import slow_stream

__all__ = ["start"]


def series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of a series by its labels' values."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


def test_counters_whose_first_increase_has_to_be_seen_begin_at_nought() -> None:
    codes = {
        kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MediaError)
    }
    metrics = Metrics()

    assert series(metrics, "gemma_gateway_requests_shed_total") == dict.fromkeys(
        [(QUEUE_FULL,), (QUEUE_DEADLINE,), (DISPLACED,)], 0
    )
    assert series(metrics, "gemma_gateway_media_errors_total") == dict.fromkeys(
        [(code,) for code in [*codes, errors.MediaTimeoutError.code]], 0
    )
    assert series(metrics, "gemma_gateway_reloads_total") == dict.fromkeys(
        [(what, outcome) for what in ("configuration", "keys") for outcome in ("ok", "error")], 0
    )


def test_version_and_the_health_of_what_is_reloaded_are_told() -> None:
    metrics = Metrics()

    assert series(metrics, "gemma_gateway_build_info") == {(version("gemma-gateway"),): 1}
    assert series(metrics, "gemma_gateway_reload_healthy") == {("configuration",): 1, ("keys",): 1}


async def told(gateway: Running, name: str, **labels: str) -> float:
    """The value of a series, once all that has ended is counted."""
    await gateway.idle()
    return gateway.metric(f"gemma_gateway_{name}", path="/v1/chat/completions", model="gemma", **labels)


async def test_first_tokens_of_streams_are_told_from_answers_in_one_piece(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = completion()

    await gateway.chat()
    await gateway.chat(stream=True)
    await gateway.chat(stream=True)

    assert await told(gateway, "first_byte_seconds_count", stream="no") == 1
    assert await told(gateway, "first_byte_seconds_count", stream="yes") == 2


async def test_time_between_tokens_is_the_mean_of_each_stream(start: Start) -> None:
    gateway = await start()
    gateway.engine.behaviour = slow_stream(0.5, events=5)

    await gateway.chat(stream=True)

    assert await told(gateway, "token_seconds_count") == 1
    # Five events and the end, 0.1 s apart.
    assert 0.09 <= await told(gateway, "token_seconds_sum") <= await told(gateway, "request_seconds_sum") / 5
    assert await told(gateway, "token_seconds_bucket", le="0.05") == 0


async def test_a_stream_of_one_event_has_no_time_between_tokens(start: Start) -> None:
    async def one(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("a"))
        await send(writer, b"")

    gateway = await start()
    gateway.engine.behaviour = one

    await gateway.chat(stream=True)
    await gateway.chat()

    assert await told(gateway, "first_byte_seconds_count") == 2
    assert await told(gateway, "token_seconds_count") == 0
