"""Several real engines behind one gateway: restarts that nobody notices, and conversations that find their caches."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.engine.test_server import GONE_SECONDS, EngineProcess, chat, metric, running, start_up
from tests.serving import serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

#: Eager, so that they are up in seconds.
FLAGS = ("--enforce-eager", "--served-model-name", "gemma", "--drain-seconds", "60", "--max-model-len", "4096")


@dataclass
class Replicas:
    """Engine processes, each in a folder of its own, where its socket stays over restarts."""

    model: Path
    folders: Sequence[Path]
    engines: list[EngineProcess]
    _stack: ExitStack

    @property
    def urls(self) -> list[str]:
        return [f"unix:{folder / 'engine.sock'}" for folder in self.folders]

    def start(self, number: int) -> EngineProcess:
        with pytest.MonkeyPatch.context() as patch:
            # By itself each would take the first core.
            patch.setenv("VLLM_CPU_OMP_THREADS_BIND", str(number % (os.cpu_count() or 1)))
            return self._stack.enter_context(running(self.model, self.folders[number], *FLAGS))

    def restart(self, number: int) -> None:
        """Ends one by SIGTERM and starts its successor. Takes as long as an engine takes to start."""
        self.engines[number].process.terminate()
        assert self.engines[number].process.wait(GONE_SECONDS) == 0
        self.engines[number] = self.start(number)
        start_up(self.engines[number])

    def prefix_cache(self) -> tuple[float, float]:
        """Tokens found in the prefix caches, and tokens looked for, of all together."""
        names = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
        found, wanted = (sum(_of_engine(engine, name) for engine in self.engines) for name in names)
        return found, wanted


def _of_engine(engine: EngineProcess, name: str) -> float:
    with engine.client() as client:
        return metric(client, name)


@contextmanager
def replicas(model: Path, folder: Path, count: int) -> Iterator[Replicas]:
    """So many engines, started at the same time, once all are ready."""
    folders = [folder / str(number) for number in range(count)]
    for each in folders:
        each.mkdir()
    with ExitStack() as stack:
        made = Replicas(model, folders, [], stack)
        made.engines = [made.start(number) for number in range(count)]
        for engine in made.engines:
            start_up(engine)
        yield made


@asynccontextmanager
async def gateway(folder: Path, urls: Sequence[str], policy: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway before these engines."""
    config = folder / f"{policy}.yaml"
    engine = {"urls": list(urls), "probe_seconds": 0.5, "routing": {"policy": policy, "explain": True}}
    config.write_text(yaml.safe_dump({"engines": {"default": engine}, "models": {"gemma": {}}}))
    async with AsyncExitStack() as stack:
        served, url = await stack.enter_async_context(serving(config))
        while served.engines["default"].usable < len(urls):
            await asyncio.sleep(0.05)
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=120))


async def ask(client: httpx.AsyncClient, document: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=document)


async def keep_asking(client: httpx.AsyncClient, least: int, work: Awaitable[None]) -> list[str]:
    """What short requests have come to that were sent, four at a time, until `work` was done, and `least` at least."""
    answers: list[str] = []
    done = asyncio.ensure_future(work)

    async def some() -> None:
        while not done.done() or len(answers) < least:
            number = len(answers)
            stream = number % 2 == 0
            document = chat(f"Say {number}", max_tokens=4 + number % 5, ignore_eos=True, stream=stream)
            answers.append(_outcome(await ask(client, document), stream=stream))
            await asyncio.sleep(1)

    await asyncio.gather(*[some() for _ in range(4)])
    await done
    return answers


def _outcome(answer: httpx.Response, *, stream: bool) -> str:
    whole = answer.text.endswith("data: [DONE]\n\n") and '"length"' in answer.text if stream else answer.is_success
    return "whole" if answer.status_code == 200 and whole else f"{answer.status_code} {answer.text[-300:]}"


@pytest.mark.parametrize("restarts", [1, pytest.param(2, marks=pytest.mark.extended)])
async def test_no_request_is_lost_while_replicas_are_restarted_in_turn(
    model: Path, tmp_path: Path, restarts: int
) -> None:
    with replicas(model, tmp_path, 2) as engines:
        async with gateway(tmp_path, engines.urls, "least_requests") as client:

            async def restart() -> None:
                for number in range(restarts):
                    await asyncio.to_thread(engines.restart, number)

            answers = await keep_asking(client, 200, restart())

    assert len(answers) >= 200
    assert [answer for answer in answers if answer != "whole"] == []


GROUPS, CONVERSATIONS, TURNS = 2, 5, 6


async def converse(client: httpx.AsyncClient, salt: str, group: int, number: int) -> list[str]:
    """A conversation behind its group's long system prompt; which replica answered each turn."""
    system = f"{salt}, group {group}. " + "You answer in the fewest words that will do. " * 12
    question = f"Number {number}. " + "Tell me what all of this is about, please. " * 36
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    replicas: list[str] = []
    for _ in range(TURNS):
        answer = await ask(client, chat("", max_tokens=8, ignore_eos=True) | {"messages": messages})
        assert answer.status_code == 200, answer.text
        (replica,) = re.findall(r"replica=([^;]+);", answer.headers["x-gemma-routing"])
        replicas.append(replica)
        said = answer.json()["choices"][0]["message"]["content"]
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then? " * 10}]
    return replicas


Measured = tuple[float, list[list[str]]]


async def measured(folder: Path, engines: Replicas, policy: str) -> Measured:
    """The share of prompt tokens that were in a prefix cache, and where each conversation's turns went."""
    pairs = [(group, number) for group in range(GROUPS) for number in range(CONVERSATIONS)]
    before = engines.prefix_cache()
    async with gateway(folder, engines.urls, policy) as client:
        paths = await asyncio.gather(*[converse(client, policy, *pair) for pair in pairs])
    after = engines.prefix_cache()
    return (after[0] - before[0]) / (after[1] - before[1]), list(paths)


@pytest.mark.extended
async def test_conversations_find_more_in_the_caches_by_affinity_than_in_turn(
    model: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with replicas(model, tmp_path, 3) as engines:
        in_turn, scattered = await measured(tmp_path, engines, "round_robin")
        by_affinity, gathered = await measured(tmp_path, engines, "affinity")

    record_property("hit ratio, round_robin", in_turn)
    record_property("hit ratio, affinity", by_affinity)
    assert by_affinity > in_turn + 0.05
    assert sum(len(set(path)) == 1 for path in gathered) > sum(len(set(path)) == 1 for path in scattered)
