"""What `helm test` runs, against a real gateway before a fake engine."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import fake_engine
from tests.fake_engine import FakeEngine
from tests.helm.rendering import Object, helm_template, only
from tests.serving import serving

VALUES: dict[str, Any] = {
    "config": {"engines": {"default": {"url": "http://e:8000"}}, "models": {"gemma": {"served_name": "g"}}}
}


@pytest.fixture
def objects() -> list[Object]:
    return helm_template("gateway", VALUES)


async def ask(objects: list[Object], folder: Path, modalities: list[str], key: str) -> tuple[int, str, FakeEngine]:
    """Runs the rendered pod's command against a gateway that knows the rendered key: its end, its words, the engine."""
    (folder / "keys.yaml").write_text(only(objects, "Secret")["stringData"]["keys.yaml"])
    (container,) = only(objects, "Pod")["spec"]["containers"]
    async with fake_engine.running() as engine:
        document = {
            "auth": {"keys_directory": str(folder)},
            "engines": {"default": {"url": engine.url}},
            "models": {"gemma": {"served_name": "g", "family": "gemma3", "modalities": modalities}},
        }
        config = folder / "config" / "gateway.yaml"
        config.parent.mkdir()
        config.write_text(yaml.safe_dump(document))
        async with serving(config) as (_, url):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *container["command"][1:],
                *container["args"],
                env={"BASE_URL": url, "API_KEY": key, "TIMEOUT_SECONDS": "10", "PATH": os.environ["PATH"]},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            return process.returncode or 0, out.decode(), engine


async def test_a_model_that_sees_is_shown_an_image(objects: list[Object], tmp_path: Path) -> None:
    key = only(objects, "Secret")["stringData"]["key"]
    code, words, engine = await ask(objects, tmp_path, ["text", "image"], key)
    assert (code, words.splitlines()) == (
        0,
        ["a wrong key: refused", "a completion: answered, 3 tokens", "an image: answered, 3 tokens"],
    )
    assert [request.json()["model"] for request in engine.requests] == ["g", "g"]


async def test_a_model_that_does_not_see_is_asked_in_words(objects: list[Object], tmp_path: Path) -> None:
    key = only(objects, "Secret")["stringData"]["key"]
    code, words, engine = await ask(objects, tmp_path, ["text"], key)
    assert code == 0
    assert words.endswith("no image was tried: gemma does not see\n")
    assert len(engine.requests) == 1


async def test_without_a_key_only_the_refusal_is_tested(objects: list[Object], tmp_path: Path) -> None:
    code, words, engine = await ask(objects, tmp_path, ["text"], "")
    assert (code, engine.requests) == (0, [])
    assert words.endswith("no completion was tried: set test.keySecret to a Secret with a key\n")


async def test_a_key_that_is_not_let_in_fails(objects: list[Object], tmp_path: Path) -> None:
    code, words, _ = await ask(objects, tmp_path, ["text"], "sk-gemma-other-key")
    assert code == 1
    assert "the list of models: 401 where 200 was expected" in words
