"""How the preset and the flags given by hand become vLLM's arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.engine.arguments import Argument, prepare_environment, thread_binding
from gateway.engine.presets import recognise

engine = pytest.mark.engine


def test_an_argument_tells_where_it_comes_from() -> None:
    assert str(Argument("max_model_len", 8192, preset=True)) == "--max-model-len 8192 (preset)"
    assert str(Argument("limit_mm_per_prompt", {"image": 2}, preset=False)) == '--limit-mm-per-prompt {"image": 2}'


def test_a_secret_is_not_shown() -> None:
    assert str(Argument("api_key", ["sk-1"], preset=False)) == "--api-key ***"


def test_cores_are_divided_evenly_among_ranks() -> None:
    assert thread_binding([0, 1, 2, 3, 4], 2) == "0,1|2,3"


def test_the_environment_keeps_what_the_operator_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = {"VLLM_CPU_KVCACHE_SPACE": "7", "VLLM_PLUGINS": "theirs"}
    monkeypatch.setattr(os, "environ", clean)
    prepare_environment("google/gemma-4-31B-it", recognise("google/gemma-4-31B-it"))
    assert clean["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert clean["VLLM_PLUGINS"] == "theirs,gemma_gateway"
    assert clean["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert "HF_HUB_OFFLINE" not in clean


def test_a_directory_is_served_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", clean)
    prepare_environment(str(tmp_path), recognise("google/gemma-4-E2B-it"))
    assert clean["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_PLUGINS" not in clean


#: Runs where vLLM may be imported: a process of its own.
PARSING = """
    import json, sys
    from gateway.engine import arguments, gemmas
    from gateway.engine.arguments import Target
    from gateway.errors import ConfigurationError

    def parse(name, *given):
        preset = gemmas.Preset(name, gemmas.SHAPES[name])
        return arguments.parse(Target("google/" + name, None, None, "/run/x.sock", 20.5), preset, given)

    def refusal(*given):
        try:
            parse("gemma-4-E4B", *given)
        except ConfigurationError as fault:
            return str(fault)

    def unknown(name):
        preset = gemmas.Preset(name, gemmas.SHAPES[name])
        flags = {**preset.args, **gemmas.cpu_args(preset), "gpu-memory-utilization": 1, "tensor-parallel-size": 1}
        known = arguments.vllm_parser()._option_string_actions
        return [flag for flag in flags if "--" + flag not in known]

    given = parse("gemma-4-E4B", "--max-model-len", "4096", "--limit-mm-per-prompt", '{"image": 1}')
    def worker(*given):
        return parse("gemma-4-E4B", "--nnodes", "2", "--master-addr", "127.0.0.1", "--headless", *given).namespace

    print(json.dumps({
        "effective": {argument.name: [argument.value, argument.preset] for argument in given.effective},
        "uds": given.namespace.uds,
        "unknown": {name: unknown(name) for name in gemmas.SHAPES},
        "servers": refusal("--api-server-count", "2"),
        "parser": refusal("--enable-log-outputs"),
        "worker": [worker("--node-rank", "1").headless, worker("--node-rank", "1").node_rank],
        "alone": refusal("--headless"),
        "size": parse("gemma-4-E4B", "--tensor-parallel-size", "2").namespace.tensor_parallel_size,
        "given": [arguments._has_size(words) for words in ([], ["-tp", "1"], ["--tensor-parallel-size=2"])],
    }, default=str))
"""


@engine
@pytest.mark.timeout(200)
def test_presets_are_defaults_that_flags_given_by_hand_override() -> None:
    program = textwrap.dedent(PARSING)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    told = json.loads(next(line for line in result.stdout.splitlines() if line.startswith('{"effective')))
    effective = told["effective"]
    assert effective["max_model_len"] == [4096, False]
    assert effective["limit_mm_per_prompt"] == [{"image": 1}, False]
    assert effective["reasoning_parser"] == ["gemma4", True]
    assert effective["served_model_name"] == [["google/gemma-4-E4B"], True]
    assert effective["shutdown_timeout"] == [21, True]
    assert told["uds"] == "/run/x.sock"
    assert not any(told["unknown"].values())
    assert "one HTTP server" in told["servers"]
    assert "--enable-log-requests" in told["parser"]
    assert told["worker"] == [True, 1]
    assert "one HTTP server" in told["alone"]
    assert told["size"] == 2
    assert told["given"] == [False, True, True]
