"""The whole stack as a user starts it, with the demonstration model as it was trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import gateway
from gateway.demo import trained
from gateway.demo.model import write_model

#: Names the directory of a model to ask instead of the one in the package, such as `model` of a training under way.
OTHER = "GEMMA_TRAINED_MODEL"
ENGINE_ARGS = ["--enforce-eager", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the trained model."""
    if given := os.environ.get(OTHER):
        return Path(given)
    if not trained.weights_are_here():
        pytest.skip(f"this package has no trained weights, and {OTHER} names no others")
    directory = tmp_path_factory.mktemp("models") / "gemma"
    write_model(directory, trained=True)
    return directory


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK before engine and gateway, without retries of its own."""
    named = ["--served-model-name", "gemma"]
    with (
        gateway.launch(model, engine_args=ENGINE_ARGS, gateway_args=named) as server,
        server.openai(max_retries=0, timeout=60) as sdk,
    ):
        yield sdk
