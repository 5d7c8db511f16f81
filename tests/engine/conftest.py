"""The whole stack as a user starts it: `serve` with the small Gemma 4, shared by the tests of this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

import gateway
from gateway.demo.model import write_model
from gateway.launcher import Server

#: Eager, so that the engine is up in seconds; one GiB of KV cache is plenty for the small model.
ENGINE_ARGS = ["--enforce-eager", "--dtype", "float32"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An engine takes its time to start, longer on a busy machine, and the first test that wants it waits."""
    for item in items:
        if item.get_closest_marker("engine") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Gemma 4, which sees and hears."""
    directory = tmp_path_factory.mktemp("models") / "gemma"
    write_model(directory)
    return directory


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files requests may name."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def server(model: Path, media_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running stack. Its media folder is `media_folder`; loopback may be fetched from, for local test servers."""
    config = tmp_path_factory.mktemp("config") / "gateway.yaml"
    config.write_text(f"media: {{folder: {media_folder}, allowed_networks: [127.0.0.0/8]}}\n")
    with gateway.launch(model, engine_args=ENGINE_ARGS, config=config) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, without retries of its own."""
    with server.openai(max_retries=0, timeout=60) as sdk:
        yield sdk


class EngineMetrics:
    """Reads vLLM's own /metrics over the engine's socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    def __getitem__(self, name: str) -> float:
        """The sum of a series over its labels."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=self._socket), base_url="http://engine") as client:
            text = client.get("/metrics").text
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@pytest.fixture(scope="session")
def engine_metrics(server: Server) -> EngineMetrics:
    return EngineMetrics(server.engine_socket)
