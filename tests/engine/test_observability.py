"""Dashboards and alerts are of series that there are: a real Prometheus reads a real gateway and a real engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.access import key_edits
from gateway.launcher import Server
from gateway.settings import Grant, Limits
from tests import fake_engine
from tests.fake_engine import Received, abort, begin, event, send
from tests.live.test_process import free_port, until
from tests.media.samples import data_url, image_bytes, picture
from tests.observability import exposition, prometheus
from tests.observability.declared import RULES, expressions, queries
from tests.observability.exposition import behind, recorded

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SAMPLES = Path(__file__).parents[1] / "observability" / "dcgm.txt"
MESSAGES = [{"role": "user", "content": "Hello there!"}]
#: Some blocks of the prefix cache.
LONG = [{"role": "user", "content": "Hello there! " * 200}]


@dataclass(frozen=True)
class Stack:
    """A gateway in front of the session's engine, with everything that can go wrong; and its configuration's file."""

    client: httpx.AsyncClient
    admin: str
    config: Path
    #: Address of a server that has a picture, and what the engine and its GPUs show.
    pages: str
    #: A key that may send two requests a minute. Without one named, requests have a key without limits.
    limited: str

    async def chat(self, model: str = "gemma", key: str | None = None, **fields: Any) -> int:
        """The status of an answer that is read to its end."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        body = {"model": model, "messages": MESSAGES, "max_tokens": 24, **fields}
        return (await self.client.post("/v1/chat/completions", json=body, headers=headers)).status_code

    async def see(self, url: str) -> int:
        """As `chat`, with a picture."""
        content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
        return await self.chat(messages=[{"role": "user", "content": content}])


async def _break(_: Received, writer: asyncio.StreamWriter) -> None:
    """Begins a stream, and dies."""
    await begin(writer)
    await send(writer, event("a"))
    abort(writer)


def _document(folder: Path, engine: Path, broken: str) -> dict[str, Any]:
    """A configuration with an engine that is not there, one that breaks, a store and a provider that are not there."""
    nowhere = "http://127.0.0.1:1"
    return {
        "server": {"port": free_port(), "admin_port": free_port(), "drain_seconds": 1},
        "auth": {
            "keys_file": str(folder / "keys.yaml"),
            "jwt": {"company": {"issuer": nowhere, "audience": ["gemma"], "refresh_seconds": 1}},
        },
        "quotas": {"store": {"url": f"unix://{folder / 'no.sock'}"}},
        "limits": {"max_in_flight": 2, "max_queued": 2},
        "media": {"allowed_networks": ["127.0.0.0/8"]},
        "usage": {"file": str(folder / "usage.jsonl")},
        "engines": {
            "default": {"url": f"unix:{engine}"},
            "nobody": {"url": nowhere, "hold": {"seconds": 0.2}},
            "broken": {"url": broken},
        },
        "models": {
            "gemma": {"modalities": ["text", "image", "audio"]},
            "dead": {"engine": "nobody"},
            "brittle": {"engine": "broken"},
            "safe": {"targets": [{"model": "dead"}], "fallbacks": ["gemma"]},
        },
    }


@asynccontextmanager
async def gateway_process(document: dict[str, Any], folder: Path) -> AsyncIterator[Path]:
    """`gemma-gateway gateway` with this configuration, ready; the configuration's file."""
    config = folder / "gateway.yaml"
    await asyncio.to_thread(config.write_text, yaml.safe_dump(document))
    command = [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]
    child = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(f"http://127.0.0.1:{document['server']['admin_port']}/readyz", 200)
        yield config
    finally:
        child.kill()
        await child.wait()


@pytest.fixture
async def stack(server: Server, tmp_path: Path) -> AsyncIterator[Stack]:
    keys = tmp_path / "keys.yaml"
    free = key_edits.create(keys, "alice")
    limited = key_edits.create(keys, "bob", Grant(limits=Limits(requests_per_minute=2)))
    pages = {
        "/engine": behind(server.engine_socket),
        "/dcgm": recorded(SAMPLES),
        "/picture.png": exposition.picture(image_bytes()),
    }
    async with fake_engine.running() as broken:
        broken.behaviour, broken.models = _break, ("brittle",)
        document = _document(tmp_path, server.engine_socket, broken.url)
        url, admin = (f"127.0.0.1:{document['server'][port]}" for port in ("port", "admin_port"))
        with exposition.serving(pages) as address:
            headers = {"authorization": f"Bearer {free}"}
            async with (
                gateway_process(document, tmp_path) as config,
                httpx.AsyncClient(base_url=f"http://{url}", timeout=60, headers=headers) as client,
            ):
                yield Stack(client, admin, config, address, limited)


async def load(stack: Stack) -> None:
    """A little of everything: what goes well, and each kind of what does not."""
    assert await stack.chat() == 200
    assert await stack.chat(stream=True, stream_options={"include_usage": True}) == 200
    assert await stack.chat(key="sk-wrong") == 401
    assert [await stack.chat(key=stack.limited) for _ in range(3)] == [200, 200, 429]
    assert await stack.chat("safe") == 200
    assert await stack.chat("dead") == 503
    assert await stack.chat("brittle", stream=True) == 200
    assert [await stack.chat(messages=LONG) for _ in range(2)] == [200, 200]
    assert await stack.see(data_url(image_bytes(image=picture(size=(96, 96))))) == 200
    assert await stack.see(data_url(image_bytes("TIFF"))) == 200
    assert await stack.see(f"http://{stack.pages}/picture.png") == 200
    assert await stack.see("http://127.0.0.1:1/none.png") == 422
    crowd = await asyncio.gather(*[stack.chat(min_tokens=100, max_tokens=100) for _ in range(8)])
    assert set(crowd) == {200, 503}


async def change(stack: Stack, server: prometheus.Server) -> None:
    """Changes the configuration to a good one, and to one that is refused."""
    text = await asyncio.to_thread(stack.config.read_text)
    for outcome, changed in {"ok": text.replace("brittle: ", "fragile: "), "error": "nonsense: true"}.items():
        await asyncio.to_thread(stack.config.write_text, changed)
        await asyncio.to_thread(server.until, f'gemma_gateway_reloads_total{{outcome="{outcome}"}} > 0')


def _scraped(stack: Stack) -> dict[str, Any]:
    """A Prometheus configuration that reads often, and the chart's rules."""
    targets = {"gateway": (stack.admin, "/metrics"), "engine": (stack.pages, "/engine"), "dcgm": (stack.pages, "/dcgm")}
    jobs = [
        {"job_name": job, "metrics_path": path, "static_configs": [{"targets": [target]}]}
        for job, (target, path) in targets.items()
    ]
    often = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    return {"global": often, "scrape_configs": jobs, "rule_files": [str(path) for path in RULES]}


def lacking(server: prometheus.Server) -> list[str]:
    """What finds nothing: queries of panels, and series that panels and rules take."""
    shown, asked = queries(), [*queries(), *expressions()]
    empty = [f"{each.place}: {each.expression}" for each in shown if not server.query(each.expression)]
    return empty + [
        each for each in sorted({name for one in asked for name in one.selectors}) if not server.query(each)
    ]


async def test_every_panel_and_every_rule_is_of_series_that_there_are(stack: Stack, tmp_path: Path) -> None:
    with prometheus.serving(tmp_path, _scraped(stack)) as server:
        await asyncio.to_thread(server.until, "up{job='gateway'} == 1 and on () up{job='engine'} == 1")
        await load(stack)
        await change(stack, server)
        # On a busy machine a page is not always read in time, and its series are away until the next.
        for _ in range(20):
            if not (missing := await asyncio.to_thread(lacking, server)):
                break
            await asyncio.sleep(2)
        firing = {series["metric"]["alertname"] for series in server.query('ALERTS{alertstate="firing"}')}
        unwell = [rule["name"] for rule in server.rules() if rule["health"] != "ok"]

    assert missing == []
    assert unwell == []
    assert "GemmaConfigurationRefused" in firing
