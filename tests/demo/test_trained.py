"""The trained model as a directory: what is written, and what `serve` reads of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import cli
from gateway.demo import trained
from gateway.demo.model import MARKER, Shape, write_model
from gateway.engine import serve
from gateway.engine.presets import recognise
from gateway.engine.serve import Request
from gateway.errors import ConfigurationError
from gateway.settings import Family

needs_weights = pytest.mark.skipif(not trained.weights_are_here(), reason="this package has no trained weights")
FREE = {"server": {"port": 0, "admin_port": 0}}
OTHERS = [
    (Family.GEMMA3, Shape.E),
    (Family.GEMMA3N, Shape.E),
    (Family.GEMMA4, Shape.DENSE),
    (Family.GEMMA4, Shape.MOE),
]


@pytest.mark.parametrize(("family", "shape"), OTHERS)
def test_only_one_gemma_was_trained(family: Family, shape: Shape, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="use --untrained"):
        write_model(tmp_path / "model", family, shape, trained=True)


@pytest.mark.skipif(trained.weights_are_here(), reason="this package has trained weights")
def test_a_package_without_weights_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="make demo-model-training"):
        write_model(tmp_path / "model", trained=True)


@needs_weights
def test_the_trained_model_is_whole_and_written_without_torch_or_transformers(tmp_path: Path) -> None:
    write = (
        "import pathlib, sys; from gateway.demo.model import write_model; "
        f"write_model(pathlib.Path({str(tmp_path / 'model')!r}), trained=True); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", write], check=False).returncode == 0
    frame = {"chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == {*frame, *trained.LEARNT, MARKER}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "model").iterdir())


@needs_weights
def test_the_command_writes_the_trained_model_unless_told_otherwise(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["demo-model", str(tmp_path / "model")])
    assert done.output.endswith("holds a small gemma4, trained.\n")
    assert json.loads((tmp_path / "model" / MARKER).read_text())["trained"] == trained.fingerprint()


@needs_weights
def test_a_trained_model_that_is_there_is_left_alone_and_one_of_other_weights_replaced(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_model(model, trained=True)
    (model / "tokenizer.json").unlink()
    write_model(model, trained=True)
    assert not (model / "tokenizer.json").exists()
    marker = json.loads((model / MARKER).read_text())
    (model / MARKER).write_text(json.dumps(marker | {"trained": "of an older package"}))
    write_model(model, trained=True)
    assert (model / "tokenizer.json").exists()


@pytest.mark.engine
@pytest.mark.parametrize("option", [["--untrained"], ["--seed", "0"], ["--family", "gemma4"], ["--shape", "e"]])
def test_the_command_writes_random_weights_when_these_are_asked_for(option: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["demo-model", str(tmp_path / "model"), *option])
    assert done.output.endswith("with random weights.\n")
    assert json.loads((tmp_path / "model" / MARKER).read_text())["trained"] == ""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As much of the trained model's directory as is read before its weights."""
    directory = tmp_path / "model"
    words = trained.write_frame(directory)
    config = {"model_type": "gemma4", **trained.configuration(words)}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def budget(model: Path, *engine_args: str) -> int | None:
    request = Request(str(model), engine_args=engine_args, served_name="gemma", overrides=FREE)
    return serve.effective_settings(request, recognise(str(model)), Path("/run/engine.sock")).models["*"].image_budget


def test_serve_reads_the_budget_of_a_picture_from_the_model(model: Path) -> None:
    assert budget(model) == trained.DEFAULT_BUDGET


def test_a_budget_among_the_engines_flags_wins_over_the_models(model: Path) -> None:
    assert budget(model, "--mm-processor-kwargs", '{"max_soft_tokens": 280}') == 280
    assert budget(model, '--mm-processor-kwargs={"images_kwargs": {"max_soft_tokens": 560}}') == 560


@pytest.mark.parametrize("given", ["", "{}", "[]", "{broken", '{"max_soft_tokens": 71}', '{"images_kwargs": null}'])
def test_flags_that_name_no_budget_leave_it_to_the_model(model: Path, given: str) -> None:
    assert budget(model, "--mm-processor-kwargs", given) == trained.DEFAULT_BUDGET


@pytest.mark.parametrize("told", [280, 256, None])
def test_a_model_with_the_familys_own_budget_or_one_that_cannot_be_asked_for_has_none(model: Path, told: int) -> None:
    config = json.loads((model / "config.json").read_text())
    config["vision_config"]["default_output_length"] = told
    (model / "config.json").write_text(json.dumps(config))
    assert budget(model) is None
