"""A gateway on real sockets in the test's own event loop, in front of fake engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway import settings
from gateway.app import Gateway
from tests import fake_engine
from tests.fake_engine import FakeEngine
from tests.serving import serving

MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Running:
    """A gateway that serves at `url`, the engines behind it by name, a client for it, and its configuration's file."""

    gateway: Gateway
    engines: dict[str, FakeEngine]
    url: str
    client: httpx.AsyncClient
    config: Path
    document: dict[str, Any] = field(repr=False)

    @property
    def engine(self) -> FakeEngine:
        """The engine called `default`."""
        return self.engines["default"]

    @property
    def in_flight(self) -> int:
        """Requests that hold anything: a slot or an upstream exchange."""
        return self.gateway.admission.in_flight + sum(engine.in_flight for engine in self.gateway.engines.values())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels."""
        return sum(
            sample.value
            for family in self.gateway.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def idle(self) -> None:
        """Waits, at most 2 s, until no request is left in gateway or engines."""
        async with asyncio.timeout(2):
            while self.in_flight or any(engine.running for engine in self.engines.values()):
                await asyncio.sleep(0.01)

    async def chat(self, key: str | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "gemma", "messages": MESSAGES, **fields}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    def configure(self, **sections: Any) -> None:
        """Rewrites the configuration's file, with sections merged over those that the gateway was started with."""
        self.config.write_text(yaml.safe_dump(settings._merge(self.document, sections)))

    async def until(self, condition: Callable[[], bool], seconds: float = 3) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a gateway; keyword arguments are sections of the configuration that are merged over the default. There
    is a fake engine for each name in `engines`, and one called `default`.
    """
    async with AsyncExitStack() as stack:

        async def _start(**sections: dict[str, Any]) -> Running:
            names = {"default", *sections.get("engines", {})}
            engines = {name: await stack.enter_async_context(fake_engine.running()) for name in names}
            config = tmp_path / f"gateway-{id(engines)}.yaml"
            return await stack.enter_async_context(_gateway(engines, sections, config))

        yield _start


@asynccontextmanager
async def _gateway(
    engines: dict[str, FakeEngine], sections: dict[str, dict[str, Any]], config: Path
) -> AsyncIterator[Running]:
    document: dict[str, Any] = {
        "server": {"drain_seconds": 2},
        "engines": {
            name: {"url": engine.url, "probe_seconds": 60, "hold": {"seconds": 1}} for name, engine in engines.items()
        },
        "models": {"gemma": {"served_name": "served", "modalities": ["text", "image", "audio"]}},
    }
    tree = settings._merge(document, sections)
    config.write_text(yaml.safe_dump(tree))
    async with serving(config) as (gateway, url), httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield Running(gateway, engines, url, client, config, tree)
