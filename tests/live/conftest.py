"""A gateway on real sockets in the test's own event loop, in front of a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway import settings
from gateway.app import Gateway, _bind, _server
from tests import fake_engine
from tests.fake_engine import FakeEngine

MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Running:
    """A gateway that serves at `url`, the engine behind it, and a client for it."""

    gateway: Gateway
    engine: FakeEngine
    url: str
    client: httpx.AsyncClient

    @property
    def in_flight(self) -> int:
        """Requests that hold anything: a slot or an upstream exchange."""
        return self.gateway.admission.in_flight + self.gateway.engines["default"].in_flight

    def metric(self, name: str, **labels: str) -> float:
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    async def idle(self) -> None:
        """Waits, at most 2 s, until no request is left in gateway or engine."""
        async with asyncio.timeout(2):
            while self.in_flight or self.engine.running:
                await asyncio.sleep(0.01)

    async def chat(self, **fields: Any) -> httpx.Response:
        body = {"model": "gemma", "messages": MESSAGES, **fields}
        return await self.client.post("/v1/chat/completions", json=body)


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a gateway; keyword arguments are sections of the configuration that are merged over the default."""
    async with AsyncExitStack() as stack:

        async def _start(**sections: dict[str, Any]) -> Running:
            engine = await stack.enter_async_context(fake_engine.running())
            return await stack.enter_async_context(_gateway(engine, sections))

        yield _start


@asynccontextmanager
async def _gateway(engine: FakeEngine, sections: dict[str, dict[str, Any]]) -> AsyncIterator[Running]:
    document: dict[str, Any] = {
        "server": {"drain_seconds": 2},
        "engines": {"default": {"url": engine.url, "probe_seconds": 60}},
        "models": {"gemma": {"served_name": "served", "modalities": ["text", "image", "audio"]}},
    }
    tree = settings._merge(document, sections)
    gateway = Gateway(settings.load(None, tree))
    listener = _bind("127.0.0.1", 0, "port")
    server = _server(gateway, gateway.settings)
    async with gateway:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=10) as client, asyncio.timeout(10):
            while not (server.started and gateway.engines["default"].ready):
                await asyncio.sleep(0.01)
            yield Running(gateway, engine, url, client)
        server.should_exit = server.force_exit = True
        await serving
