"""The comparison of proxies measures what it says, and tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest import overhead_report as report
from loadtest.client import connected, head
from loadtest.overhead_load import Plan, measure
from loadtest.overhead_proxies import DIRECT, GATEWAY, LITELLM, ROUTER, ROUTER_BY_DEFAULT, found
from loadtest.overhead_report import Sample
from loadtest.overhead_scenarios import SCENARIOS, named
from loadtest.processes import engine_command, free_port, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SMALL = next(each for each in SCENARIOS if each.name == "small-16")
STREAM = b'{"model":"gemma","stream":true,"max_tokens":%d}'


@pytest.fixture(scope="module")
def engine() -> Iterator[int]:
    port = free_port()
    with running(engine_command(port), port):
        yield port


def sample(cost: float | None, wait_p99: float = 1.0, errors: int = 0) -> Sample:
    return Sample(cost, 100, 0.5, wait_p99, 0.0, 0.0, errors)


def samples(**costs: float) -> dict[str, list[Sample]]:
    names = {"gateway": GATEWAY, "router": ROUTER, "router_by_default": ROUTER_BY_DEFAULT, "litellm": LITELLM}
    return {DIRECT: [sample(None)], **{names[name]: [sample(cost)] for name, cost in costs.items()}}


def streaming(tokens: int, events: int) -> Plan:
    body = STREAM % tokens
    return Plan(head(len(body)) + body, connections=3, seconds=0.2, settling=0.1, events=events)


def streamed(port: int, body: bytes) -> bytes:
    with connected(port) as connection:
        connection.settimeout(5)
        connection.sendall(head(len(body)) + body)
        said = b""
        while not said.endswith(b"0\r\n\r\n"):
            said += connection.recv(65536)
    return said


def test_engine_sends_each_token_as_a_chunk_of_its_own_and_no_usage_unasked(engine: int) -> None:
    said = streamed(engine, STREAM % 5)

    assert said.count(b'"content":" token"') == 5
    assert said.count(b"\r\ndata: ") == 7
    assert b'"usage"' not in said


def test_engine_tells_the_usage_where_it_was_asked_for(engine: int) -> None:
    said = streamed(engine, (STREAM % 5)[:-1] + b',"stream_options":{"include_usage":true}}')

    assert said.count(b'"choices":[],"usage":{') == 1


def test_whole_streams_are_counted_without_an_error(engine: int) -> None:
    seen = measure(streaming(8, events=10), engine, None)

    assert seen.errors == 0
    assert seen.requests > 0
    assert seen.events >= 10 * (seen.requests - 3)


def test_stream_that_lacks_an_event_is_an_error(engine: int) -> None:
    seen = measure(streaming(8, events=11), engine, None)

    assert seen.errors >= seen.requests > 0


def test_comparison_is_told_as_a_table_and_as_json(tmp_path: Path) -> None:
    target = tmp_path / "overhead.json"
    absent = [option for peer in (ROUTER, ROUTER_BY_DEFAULT, "nginx", LITELLM) for option in ("--without", peer)]
    chosen = ["--scenario", "fast", "--rounds", "1", "--seconds", "0.3", "--choosing"]
    command = [sys.executable, "-m", "loadtest.overhead", *chosen, *absent, "--json", str(target)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "\n256 tokens, no pause, 16 connections\n" in done.stdout
    told = json.loads(target.read_text())
    (seen,) = told["fast"]["proxies"][GATEWAY]["samples"]
    assert seen["cost"] > 0
    assert seen["errors"] == 0


def test_ratio_is_the_median_of_those_of_single_rounds() -> None:
    rounds = {GATEWAY: [sample(10), sample(40), sample(30)], ROUTER: [sample(20), sample(40), sample(100)]}

    assert report.ratio(rounds, GATEWAY, ROUTER) == 0.5


def test_added_time_is_what_is_above_the_engines_own() -> None:
    rounds = {GATEWAY: [sample(1, 3.0), sample(1, 9.0)], DIRECT: [sample(None, 1.0), sample(None, 5.0)]}

    assert report.added(rounds, GATEWAY, "wait_p99") == 3.0


@pytest.mark.parametrize(
    ("costs", "verdict"),
    [
        ({"gateway": 40, "router": 60}, "reached small-16: share of vllm-router 0.67 (at most 0.80)"),
        ({"gateway": 40, "router_by_default": 80}, "reached small-16: share of cache-aware 0.50 (at most 0.80)"),
        ({"gateway": 60, "router": 60}, "MISSED  small-16: share of vllm-router 1.00 (at most 0.80)"),
        ({"gateway": 60, "litellm": 600}, "MISSED  small-16: litellm is dearer, times 10.00 (at least 100.00)"),
    ],
)
def test_each_goal_is_told_as_reached_or_missed(costs: dict[str, float], verdict: str) -> None:
    told = report.verdicts([SMALL], {SMALL.name: samples(**costs)})

    assert told.splitlines() == ["", verdict, "reached errors 0.00 (at most 0.00)"]


def test_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    report.draw([SMALL], {SMALL.name: samples(gateway=40, router=60)}, tmp_path / "overhead.png")

    assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")


def test_name_stands_for_all_scenarios_that_begin_with_it() -> None:
    assert [each.name for each in named(("small", "fast"))] == ["small-1", "small-16", "fast"]


def test_unknown_scenario_is_refused() -> None:
    with pytest.raises(KeyError, match="smal"):
        named(("smal",))


def test_router_is_measured_by_its_cheapest_policy_and_by_its_default(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")

    proxies = {proxy.name: proxy for proxy in found(tmp_path, {ROUTER: sys.executable, "nginx": nowhere})}

    commands = [proxies[name].command for name in (ROUTER, ROUTER_BY_DEFAULT)]
    cheapest, default = [command(8000, ["one:1", "two:2"]) for command in commands if command is not None]
    assert cheapest[-2:] == ["--policy", "round_robin"]
    assert default[-3:] == ["--worker-urls", "http://one:1", "http://two:2"]


def test_peer_that_is_not_installed_is_left_out(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")

    proxies = found(tmp_path, {ROUTER: nowhere, "nginx": nowhere, LITELLM: nowhere})

    assert [proxy.name for proxy in proxies] == [DIRECT, GATEWAY]
