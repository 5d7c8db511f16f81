"""What Kubernetes does with the charts' pods in a rolling restart, rehearsed with processes: no request is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from gateway.demo.model import write_model
from gateway.upstream.discovery import names
from gateway.upstream.discovery.names import ByDns
from tests import fake_engine
from tests.fake_engine import Behaviour, Received, completion, streamed
from tests.helm.kubelet import Service
from tests.helm.rendering import helm_template, only
from tests.helm.rollout import Deployment, deployed
from tests.live.conftest import MESSAGES
from tests.live.replicas import request
from tests.live.test_rolling import slow_stream
from tests.serving import serving
from tests.upstream.discovery.name_server import NameServer, name_server

#: All pods are ready, or replaced, in seconds; on a busy machine it takes longer.
PATIENCE = 240
#: Engines load for most of a minute, one after the other; on a busy machine for ten.
ENGINE_PATIENCE = 1500


@dataclass
class Balancer:
    """Stands for the nodes' part of a Service: a connection goes to one of its pods, and stays there."""

    service: Service
    port: int
    connections: Counter[str] = field(default_factory=Counter)
    _turns: Any = field(default_factory=itertools.count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        addresses = self.service.addresses
        address = addresses[next(self._turns) % len(addresses)]
        self.connections[address] += 1
        try:
            there, to = await asyncio.open_connection(address, self.port)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.create_task(_copy(reader, to)), asyncio.create_task(_copy(there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (to, writer):
            end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def balancing(service: Service, port: int) -> AsyncIterator[tuple[str, Balancer]]:
    """The address of the Service."""
    balancer = Balancer(service, port)
    async with await asyncio.start_server(balancer.serve, "127.0.0.1", 0, backlog=1024) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", balancer


class Traffic:
    """Clients that ask for one stream after the other, `rest` seconds after each and on a connection of its own, and
    clients that keep theirs and ask for short answers five times a second.
    """

    def __init__(self, address: str, key: str, streams: int, pooled: int = 4, rest: float = 0.0, **fields: Any) -> None:
        self.whole = 0
        self.short = 0
        self.lost: list[str] = []
        self._address = address
        self._key = key
        self._fields = fields
        self._rest = rest
        self._stopped = False
        starts = [asyncio.create_task(self._stream(number / streams)) for number in range(streams)]
        self._tasks = [*starts, *(asyncio.create_task(self._ask()) for _ in range(pooled))]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Begins no more, and waits for what has begun."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _stream(self, late: float) -> None:
        await asyncio.sleep(late)
        while not self._stopped:
            answer = await self._exchange()
            if answer.startswith("HTTP/1.1 200 ") and "data: [DONE]" in answer and '"error"' not in answer:
                self.whole += 1
            else:
                self.lost.append(answer)
            await asyncio.sleep(self._rest)

    async def _exchange(self) -> str:
        host, _, port = self._address.partition(":")
        writer = None
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request(self._key, **self._fields))
            return (await reader.read()).decode()
        except OSError as fault:
            return repr(fault)
        finally:
            if writer is not None:
                writer.close()

    async def _ask(self) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        body = {"model": "gemma", "messages": MESSAGES, "max_tokens": 1}
        async with httpx.AsyncClient(base_url=f"http://{self._address}", headers=headers, timeout=60) as client:
            while not self._stopped:
                try:
                    answer = await client.post("/v1/chat/completions", json=body)
                except httpx.HTTPError as fault:
                    self.lost.append(repr(fault))
                else:
                    self.short += answer.status_code == 200
                    self.lost += [answer.text] if answer.status_code != 200 else []
                    await asyncio.sleep(0.2)


def answers(seconds: float) -> Behaviour:
    """Streams that take their time, and other answers at once."""
    slow, whole = slow_stream(seconds), completion()

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        await (slow if streamed(request) else whole)(request, writer)

    return behave


@dataclass(frozen=True)
class Rehearsed:
    """How a rolling restart went."""

    deployment: Deployment
    balancer: Balancer
    traffic: Traffic


async def rolled(folder: Path, **values: Any) -> Rehearsed:
    """Restarts two gateways of the chart, in front of two engines, under live streams."""
    async with fake_engine.running() as one, fake_engine.running() as other:
        one.behaviour = other.behaviour = answers(3)
        engine = {"urls": [one.url, other.url], "probe_seconds": 0.2}
        config = {"engines": {"default": engine}, "models": {"gemma": {}}, "logs": {"level": "warning"}}
        objects = helm_template("gateway", {"config": config, "drainSeconds": 15, **values})
        key = only(objects, "Secret")["stringData"]["key"]
        rendered = only(objects, "Deployment")
        async with (
            deployed(rendered, objects, folder, PATIENCE) as (deployment, service),
            balancing(service, 8000) as (address, balancer),
            Traffic(address, key, streams=120) as traffic,
        ):
            await asyncio.sleep(3)
            await deployment.restart(PATIENCE)
            await asyncio.sleep(0.5)
            await traffic.stop()
            return Rehearsed(deployment, balancer, traffic)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_gateways_that_are_rolled_under_live_streams_lose_none(tmp_path: Path) -> None:
    seen = await rolled(tmp_path, drainDelaySeconds=2)

    old, new = seen.deployment.pods[:2], seen.deployment.pods[2:]
    assert seen.traffic.lost == []
    assert [pod.code for pod in old] == [0, 0]
    assert [pod.killed_for for pod in old] == [None, None]
    assert [pod.ready for pod in new] == [True, True]
    assert all(seen.balancer.connections[pod.address] > 30 for pod in seen.deployment.pods)
    assert seen.traffic.whole >= 240
    assert seen.traffic.short >= 30


@pytest.mark.extended
@pytest.mark.timeout(400)
async def test_without_the_delay_some_are_lost_which_shows_that_the_rehearsal_sees_it(tmp_path: Path) -> None:
    seen = await rolled(tmp_path, drainDelaySeconds=0)

    assert [pod.code for pod in seen.deployment.pods[:2]] == [0, 0]
    assert len(seen.traffic.lost) > 0


def follow(service: Service, name: str, server: NameServer) -> None:
    """Has a headless Service's name stand for its pods, now and as they change."""

    def tell(addresses: list[str]) -> None:
        server.records[name, "A"] = (1, addresses)

    tell(service.addresses)
    service.told.append(tell)


@pytest.mark.engine
@pytest.mark.extended
@pytest.mark.timeout(3300)
async def test_engines_that_are_rolled_under_live_streams_lose_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "gemma")
    given = {
        "model": str(tmp_path / "gemma"),
        "modelAliases": ["gemma"],
        "replicas": 2,
        "gpu": {"resource": ""},
        "args": {"enforce-eager": True, "dtype": "float32"},
    }
    objects = helm_template("engine", given)
    name = f"{only(objects, 'Service')['metadata']['name']}.gemma.svc."
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump({"engines": {"default": {"dns": {"name": name}}}, "models": {"gemma": {}}}))
    async with (
        name_server() as server,
        deployed(only(objects, "Deployment"), objects, tmp_path, ENGINE_PATIENCE) as (deployment, service),
    ):
        follow(service, name, server)
        monkeypatch.setattr(names, "discovery_by_dns", lambda settings: ByDns(settings, server.resolver))
        # With rests: a busy engine spins on two cores, and the one that loads meanwhile gets next to nothing of them.
        more = {"max_tokens": 150, "ignore_eos": True}
        async with (
            serving(config) as (_, url),
            Traffic(url.removeprefix("http://"), "", streams=2, pooled=0, rest=3, **more) as traffic,
        ):
            await asyncio.sleep(5)
            await deployment.restart(ENGINE_PATIENCE)
            await asyncio.sleep(5)
            await traffic.stop()

    old, new = deployment.pods[:2], deployment.pods[2:]
    assert traffic.lost == []
    assert [pod.code for pod in old] == [0, 0]
    assert [pod.killed_for for pod in old] == [None, None]
    assert [pod.ready for pod in new] == [True, True]
    assert traffic.whole >= 20
