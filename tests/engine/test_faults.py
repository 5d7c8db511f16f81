"""Clients that leave and engines that die, with the real engine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import httpx
import openai
import pytest

from gateway.launcher import Server
from tests.engine.conftest import EngineMetrics

pytestmark = pytest.mark.engine

LONG = {
    "model": "gemma",
    "messages": [{"role": "user", "content": "Go on"}],
    "max_tokens": 6000,
    "ignore_eos": True,
}
#: So long that its prefill takes the engine a while: some 7,000 tokens.
LONG_PROMPT = {**LONG, "max_tokens": 900, "messages": [{"role": "user", "content": "word " * 7000}]}


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until `condition` holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def leave_while_waiting(url: str, body: dict[str, object]) -> None:
    patience = httpx.Timeout(5, read=0.1)
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=patience) as response,
    ):
        next(response.iter_bytes())


def leave_while_receiving(url: str, body: dict[str, object]) -> None:
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=30) as response:
        next(response.iter_bytes())


LEAVINGS: dict[str, tuple[Callable[[str, dict[str, object]], None], dict[str, object]]] = {
    "waiting for the whole answer": (leave_while_waiting, LONG),
    "waiting for the first token of a stream": (leave_while_waiting, {**LONG_PROMPT, "stream": True}),
    "receiving a stream": (leave_while_receiving, {**LONG, "stream": True}),
}


@pytest.mark.parametrize(("leave", "body"), LEAVINGS.values(), ids=LEAVINGS.keys())
def test_client_that_leaves_stops_the_engine_within_two_seconds(
    server: Server,
    engine_metrics: EngineMetrics,
    leave: Callable[[str, dict[str, object]], None],
    body: dict[str, object],
) -> None:
    leave(server.base_url, body)

    wait_for(lambda: engine_metrics["vllm:num_requests_running"] == engine_metrics["vllm:num_requests_waiting"] == 0, 2)


def test_repeated_long_prefix_comes_from_the_prefix_cache(client: openai.OpenAI, engine_metrics: EngineMetrics) -> None:
    messages = [{"role": "user", "content": "A long story. " * 100}]
    for _ in range(2):
        before = engine_metrics["vllm:prefix_cache_hits_total"]
        client.chat.completions.create(model="gemma", messages=messages, max_tokens=1)  # type: ignore[arg-type]

    assert engine_metrics["vllm:prefix_cache_hits_total"] - before > 1000


def test_killed_engine_is_an_error_event_then_503_then_service_again(server: Server, client: openai.OpenAI) -> None:
    body = {**LONG, "stream": True}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=30) as response:
        events = response.iter_lines()
        assert next(events).startswith("data: {")

        assert server.engine_pid is not None
        os.kill(server.engine_pid, signal.SIGKILL)

        *_, last = [line for line in events if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"

    refused = httpx.post(f"{server.base_url}/chat/completions", json=LONG, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
    assert int(refused.headers["retry-after"]) > 0

    # The probe notices the end within half a second.
    for status, seconds in ((503, 5), (200, 300)):
        wait_for(lambda status=status: httpx.get(f"{server.admin_url}/readyz").status_code == status, seconds)  # type: ignore[misc]
    answer = client.chat.completions.create(
        model="gemma", messages=[{"role": "user", "content": "Hello"}], max_tokens=2
    )
    assert answer.choices
