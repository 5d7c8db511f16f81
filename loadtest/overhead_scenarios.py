"""The loads under which proxies are compared, and what the gateway is to reach under each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from loadtest import large_body
from loadtest.client import head
from loadtest.overhead_load import Plan

Unit = Literal["request", "chunk", "stream"]

#: Tokens of a stream that outlasts its measurement: at 20 ms each, three minutes.
_ENDLESS = 9000


@dataclass(frozen=True, slots=True)
class Scenario:
    """`unit`: what costs are per; a stream's is memory. `pace`: seconds between an engine's tokens. `goal`: the most
    that the gateway is to cost, as a share of vllm-router. `fresh`: each measurement has a process of its own, and
    more than `most_rounds` of them would tell nothing new.
    """

    name: str
    title: str
    unit: Unit
    body: Callable[[], bytes]
    connections: int
    goal: float | None = None
    pace: float = 0.0
    opening: float = 0.0
    settling: float = 0.5
    events: int | None = None
    endless: bool = False
    fresh: bool = False
    most_rounds: int = 100

    def plan(self, headers: str, seconds: float) -> Plan:
        """The load, with these lines in the head of each request."""
        body = self.body()
        return Plan(
            request=head(len(body), headers) + body,
            connections=self.connections,
            seconds=seconds,
            opening=self.opening,
            settling=self.settling,
            events=self.events,
            endless=self.endless,
        )


def _text(**more: object) -> bytes:
    messages = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": "gemma", "messages": messages, **more}, separators=(",", ":")).encode()


def _small() -> bytes:
    return _text(max_tokens=16)


def _fast() -> bytes:
    return _text(max_tokens=256, stream=True)


def _endless() -> bytes:
    return _text(max_tokens=_ENDLESS, stream=True)


def _large() -> bytes:
    return large_body.body(4_000_000)


def _streams(count: int) -> Scenario:
    title = f"{count} streams at 20 ms a token"
    return Scenario(
        f"streams-{count}",
        title,
        "chunk",
        _endless,
        count,
        goal=1.0,
        pace=0.02,
        opening=1.0,
        events=_ENDLESS + 2,
        endless=True,
    )


SCENARIOS = (
    Scenario("small-1", "small request, 1 connection", "request", _small, 1),
    Scenario("small-16", "small request, 16 connections", "request", _small, 16, goal=0.8),
    Scenario("fast", "256 tokens, no pause, 16 connections", "chunk", _fast, 16, events=258),
    _streams(200),
    _streams(500),
    Scenario("body", "a body of 4 MB, a picture in it", "request", _large, 1, goal=0.8),
    Scenario(
        "memory",
        "2,000 open streams",
        "stream",
        _endless,
        2000,
        goal=0.3,
        pace=1.0,
        opening=3.0,
        settling=2.0,
        events=_ENDLESS + 2,
        endless=True,
        fresh=True,
        most_rounds=3,
    ),
)


def named(names: tuple[str, ...]) -> list[Scenario]:
    """Those whose name is one of `names`, or begins with one and a dash; all where none is named.

    Raises KeyError where a name fits none.
    """
    for name in names:
        if not any(_fits(scenario, name) for scenario in SCENARIOS):
            raise KeyError(name)
    return [each for each in SCENARIOS if not names or any(_fits(each, name) for name in names)]


def _fits(scenario: Scenario, name: str) -> bool:
    return scenario.name == name or scenario.name.startswith(f"{name}-")
