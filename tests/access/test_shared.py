"""Gateways that count together: exact over processes, places that come back, and what happens without the store."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.access.limits import RULES, Subject
from gateway.access.quota import UNLIMITED
from gateway.access.shared import SharedQuotas, _SharedEntry
from gateway.errors import ConfigurationError, GatewayError, OverloadedError, RateLimitError
from gateway.settings import Limits, OnFailure, StoreSettings
from tests.access.logged import within_request
from tests.access.valkey import Server, serving

#: A minute is a second long.
SECOND = tuple(replace(rule, slot=10_000) for rule in RULES if rule.short != "tpd")
WINDOW = 1_000_000

KEY = Subject("key:0a1b2c", "this caller", Limits(requests_per_minute=400, tokens_per_minute=3000))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as started:
        yield started


def crowded(places: int) -> Subject:
    return Subject("model:gemma", "the model 'gemma'", Limits(max_in_flight=places))


async def settled(quotas: SharedQuotas) -> None:
    """Waits until all that was settled is in the store."""
    while quotas.store._pending:
        await asyncio.sleep(0.005)
    await (await quotas.enter([crowded(1000)], 0)).add(0)


# Two gateways.


def gateway(url: str, seconds: float) -> list[int]:
    """The moments of the server's clock at which one gateway let requests in, in microseconds. Runs as a process."""
    return asyncio.run(_gateway(url, seconds))


async def _gateway(url: str, seconds: float) -> list[int]:
    quotas = SharedQuotas(StoreSettings(url=url, timeout_seconds=5), rules=SECOND)
    end = time.monotonic() + seconds
    found = await asyncio.gather(*(_client(quotas, end) for _ in range(16)))
    assert quotas.failures == 0
    await quotas.aclose()
    return [moment for moments in found for moment in moments]


async def _client(quotas: SharedQuotas, end: float) -> list[int]:
    moments = []
    while time.monotonic() < end:
        try:
            entry = await quotas.enter([KEY], 10)
        except RateLimitError as error:
            await asyncio.sleep(min(error.retry_after or 0, max(end - time.monotonic(), 0)))
            continue
        assert isinstance(entry, _SharedEntry)
        moments.append(entry._charges[0][0])
        entry.settle(10)
    return moments


def test_sum_over_two_processes_never_exceeds_the_limit_and_all_of_it_can_be_used(server: Server) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        runs = [processes.apply_async(gateway, (server.url, 3.5)) for _ in range(2)]
        each = [run.get(60) for run in runs]
    moments = sorted(moment for moments in each for moment in moments)
    limit = 300  # 3000 tokens at 10 each
    first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= WINDOW:
            first += 1
        assert last - first + 1 <= limit
    assert min(map(len, each)) > 0
    whole_windows = (moments[-1] - moments[0]) // WINDOW
    assert whole_windows >= 2
    assert len(moments) >= 0.98 * limit * (whole_windows + 1)


# Places.


async def test_places_of_a_gateway_that_was_killed_come_back(server: Server) -> None:
    killed = SharedQuotas(server.settings(), lease=0.4, beat=60)
    alive = SharedQuotas(server.settings(), lease=0.4, beat=60)
    await killed.enter([crowded(1)], 1)
    with pytest.raises(RateLimitError, match="requests at once"):
        await alive.enter([crowded(1)], 1)
    await asyncio.sleep(0.45)
    await alive.enter([crowded(1)], 1)
    await killed.aclose()
    await alive.aclose()


async def test_places_of_requests_that_run_are_held_as_long_as_these_last(server: Server) -> None:
    quotas = SharedQuotas(server.settings(), lease=1.0, beat=0.1)
    other = SharedQuotas(server.settings(), lease=1.0, beat=0.1)
    entries = [await quotas.enter([crowded(2)], 1) for _ in range(2)]
    await asyncio.sleep(1.5)
    with pytest.raises(RateLimitError):
        await other.enter([crowded(2)], 1)
    for entry in entries:
        entry.settle(1)
    await settled(quotas)
    await other.enter([crowded(2)], 1)
    await quotas.aclose()
    await other.aclose()


async def test_requests_given_up_while_the_store_is_asked_are_taken_back(server: Server) -> None:
    quotas = SharedQuotas(server.settings())
    subject = Subject("key:1", "this caller", Limits(requests_per_minute=1, tokens_per_minute=9, max_in_flight=1))
    given_up = asyncio.create_task(quotas.enter([subject], 9))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await asyncio.sleep(0)
    await settled(quotas)
    await quotas.enter([subject], 9)
    await quotas.aclose()


async def test_additions_given_up_while_the_store_is_asked_are_settled_with_the_rest(server: Server) -> None:
    quotas = SharedQuotas(server.settings())
    subject = Subject("key:1", "this caller", Limits(tokens_per_minute=9))
    entry = await quotas.enter([subject], 4)
    given_up = asyncio.create_task(entry.add(5))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    entry.settle(1)
    await settled(quotas)
    await quotas.enter([subject], 8)
    await quotas.aclose()


async def test_keys_expire_by_themselves_and_lie_in_one_slot_of_a_cluster(server: Server) -> None:
    quotas = SharedQuotas(server.settings(), rules=SECOND, lease=1.0)
    subject = Subject("key:1", "this caller", Limits(requests_per_minute=9, tokens_per_minute=9, max_in_flight=9))
    await quotas.enter([subject], 1)
    with server.client() as client:
        keys = {bytes(key).decode(): client.pttl(key) for key in client.scan_iter()}
    assert keys.keys() == {"{gemma}:key:1:rpm", "{gemma}:key:1:tpm", "{gemma}:key:1:places"}
    assert all(900 <= lifetime <= 1020 for lifetime in keys.values())
    await quotas.aclose()


async def test_everything_settled_before_the_end_is_in_the_store_after_it(server: Server) -> None:
    quotas, other = SharedQuotas(server.settings()), SharedQuotas(server.settings())
    subject = Subject("key:1", "this caller", Limits(tokens_per_minute=1000))
    for entry in [await quotas.enter([subject], 5) for _ in range(200)]:
        entry.settle(1)
    await quotas.aclose()
    assert b"x-ratelimit-remaining-tokens: 800\r\n" in (await other.enter([subject], 0)).head
    await other.aclose()


async def test_scripts_that_the_server_forgot_are_sent_again(server: Server) -> None:
    quotas = SharedQuotas(server.settings())
    await quotas.enter([crowded(1)], 1)
    with server.client() as client:
        client.script_flush()
    with pytest.raises(RateLimitError):
        await quotas.enter([crowded(1)], 1)
    assert quotas.failures == 0
    await quotas.aclose()


# Without the store.

TIGHT = Subject("key:1", "this caller", Limits(requests_per_minute=2))


async def outcomes(quotas: SharedQuotas, requests: int) -> list[str]:
    """What becomes of so many requests at once."""
    tried = await asyncio.gather(*(quotas.enter([TIGHT], 1) for _ in range(requests)), return_exceptions=True)
    for outcome in tried:
        assert not isinstance(outcome, BaseException) or isinstance(outcome, GatewayError)
    return [type(o).__name__ if isinstance(o, BaseException) else "in" for o in tried]


async def load(quotas: SharedQuotas) -> None:
    """A client that goes on whatever it is told."""
    while True:
        with suppress(GatewayError):
            (await quotas.enter([KEY, crowded(8)], 10)).settle(5)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [
        (OnFailure.LOCAL, ["in"] * 2 + ["RateLimitError"] * 3),
        (OnFailure.OPEN, ["in"] * 5),
        (OnFailure.CLOSED, ["OverloadedError"] * 5),
    ],
)
async def test_store_that_is_gone_and_comes_back_is_dealt_with_as_configured(
    server: Server, on_failure: OnFailure, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    quotas = SharedQuotas(server.settings(on_failure))
    assert await outcomes(quotas, 5) == ["in"] * 2 + ["RateLimitError"] * 3
    clients = [asyncio.create_task(load(quotas)) for _ in range(8)]
    await asyncio.sleep(0.05)
    server.stop()
    assert await outcomes(quotas, 5) == expected
    assert not quotas.available
    server.start()
    began = time.monotonic()
    while not quotas.available:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.01)
    # A pause of a second, and an exchange.
    assert time.monotonic() - began < 2.5
    assert await outcomes(quotas, 5) == ["in"] * 2 + ["RateLimitError"] * 3
    assert sum("is gone" in record.message for record in caplog.records) == 1
    assert [record.levelname for record in caplog.records if "is back" in record.message] == ["INFO"]
    assert quotas.failures >= 1
    assert not any(client.done() for client in clients)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    await quotas.aclose()


async def test_outage_does_not_cost_each_request_the_timeout(tmp_path: Path) -> None:
    """With a server that takes connections and never answers."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        quotas = SharedQuotas(StoreSettings(url=f"unix://{tmp_path / 'silent.sock'}", timeout_seconds=0.2))
        began = time.monotonic()
        for _ in range(200):
            with suppress(RateLimitError):
                await quotas.enter([TIGHT], 1)
        assert time.monotonic() - began < 0.2 + 0.3
        assert quotas.failures == 1
        await quotas.aclose()


async def test_entries_settle_where_they_were_made(server: Server) -> None:
    subject = Subject("key:1", "this caller", Limits(tokens_per_minute=100, max_in_flight=2))
    quotas = SharedQuotas(server.settings())
    shared = await quotas.enter([subject], 60)
    server.stop()
    local = await quotas.enter([subject], 90)
    assert b"x-ratelimit-remaining-tokens: 10\r\n" in local.head
    shared.settle(10)
    await shared.add(1000)
    local.settle(50)
    assert b"x-ratelimit-remaining-tokens: 40\r\n" in (await quotas.enter([subject], 10)).head
    server.start()
    while not quotas.available:
        await asyncio.sleep(0.01)
    # The server has forgotten all, and what was settled meanwhile changes nothing there.
    assert b"x-ratelimit-remaining-tokens: 0\r\n" in (await quotas.enter([subject], 100)).head
    await quotas.aclose()


async def test_more_tokens_without_the_store_are_taken_or_refused_as_configured(server: Server) -> None:
    subject = Subject("key:1", "this caller", Limits(tokens_per_minute=100))
    lenient, strict = SharedQuotas(server.settings()), SharedQuotas(server.settings(OnFailure.CLOSED))
    entries = [await lenient.enter([subject], 10), await strict.enter([subject], 10)]
    server.stop()
    await entries[0].add(1000)
    with pytest.raises(OverloadedError, match=r"quotas\.store"):
        await entries[1].add(10)
    await lenient.aclose()
    await strict.aclose()


async def test_each_failure_is_reported() -> None:
    quotas = SharedQuotas(StoreSettings(url="redis://127.0.0.1:1", timeout_seconds=2))
    reports: list[int] = []
    quotas.report(lambda: reports.append(quotas.failures))
    await quotas.enter([TIGHT], 1)
    assert reports == [1]
    await quotas.aclose()


async def test_log_lines_of_the_store_are_no_requests_own() -> None:
    quotas = SharedQuotas(StoreSettings(url="redis://127.0.0.1:1", timeout_seconds=2))
    with within_request("gateway.access.store") as ids:
        await quotas.enter([TIGHT], 1)
    assert ids == [None]
    await quotas.aclose()


async def test_without_limits_the_store_is_not_asked() -> None:
    quotas = SharedQuotas(StoreSettings(url="redis://127.0.0.1:1"))
    assert await quotas.enter([Subject("key:1", "this caller", Limits())], 1) is UNLIMITED
    assert quotas.failures == 0
    await quotas.aclose()


async def test_password_is_in_no_log_and_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    quotas = SharedQuotas(
        StoreSettings(url="redis://user:hunter2@127.0.0.1:1/0", on_failure=OnFailure.CLOSED, timeout_seconds=2)
    )
    with pytest.raises(OverloadedError) as caught:
        await quotas.enter([TIGHT], 1)
    assert "hunter2" not in caplog.text + str(caught.value)
    assert "redis://127.0.0.1:1/0 is gone" in caplog.text
    await quotas.aclose()


async def test_password_is_read_from_its_file(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        client.config_set("requirepass", "hunter2")
    (tmp_path / "password").write_text("hunter2\n")
    settings = server.settings(OnFailure.CLOSED).model_copy(update={"password_file": tmp_path / "password"})
    quotas = SharedQuotas(settings)
    await quotas.enter([TIGHT], 1)
    assert quotas.available
    await quotas.aclose()


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (StoreSettings(url="http://:hunter2@store:6379"), r"quotas\.store\.url must be redis://host:6379/0"),
        (StoreSettings(url="redis://store", password_file=Path("/nowhere")), r"quotas\.store\.password_file: cannot"),
    ],
)
def test_store_that_cannot_be_meant_is_refused_with_the_fix(store: StoreSettings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        SharedQuotas(store)
    assert "hunter2" not in str(caught.value)
