"""What `serve` makes of its options: settings, commands, the line to paste."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.engine import serve
from gateway.engine.presets import recognise
from gateway.engine.serve import Request
from gateway.errors import ConfigurationError
from gateway.settings import Family, Modality, Settings

MODEL = "google/gemma-3-4b-it"
FREE = {"server": {"port": 0, "admin_port": 0}}


def effective(tmp_path: Path, document: dict[str, Any] | None = None, **request: Any) -> Settings:
    config = tmp_path / "user.yaml"
    config.write_text(yaml.safe_dump(document or {}))
    asked = Request(**{"model": MODEL, "overrides": FREE, "config": config, **request})
    return serve.effective_settings(asked, recognise(asked.model), Path("/run/gemma/engine.sock"))


def test_model_answers_to_its_name_and_to_every_other(tmp_path: Path) -> None:
    models = effective(tmp_path).models
    assert set(models) == {MODEL, "*"}
    assert models[MODEL] == models["*"]
    assert models["*"].served_name == MODEL
    assert models["*"].family is Family.GEMMA3
    assert models["*"].modalities == {Modality.TEXT, Modality.IMAGE}
    assert models["*"].max_model_len == recognise(MODEL).max_model_len


def test_engine_is_reached_by_its_socket(tmp_path: Path) -> None:
    assert effective(tmp_path).engines["default"].url == "unix:/run/gemma/engine.sock"


def test_models_of_the_user_stay_and_are_completed_from_the_preset(tmp_path: Path) -> None:
    document = {
        "engines": {"other": {"url": "http://other:8000"}},
        "models": {
            "chat": {},
            "blind": {"modalities": ["text"]},
            "*": {"engine": "other", "served_name": "x"},
            "gpt-4o": {"targets": [{"model": "gemma"}]},
        },
    }
    models = effective(tmp_path, document, served_name="gemma").models
    assert models["chat"] == models["gemma"]
    assert models["blind"] == models["gemma"].model_copy(update={"modalities": frozenset({Modality.TEXT})})
    assert models["gpt-4o"].model_fields_set == {"targets"}
    assert (models["*"].engine, models["*"].served_name) == ("other", "x")


def test_what_was_written_is_read_back_the_same(tmp_path: Path) -> None:
    document = {"media": {"folder": "photos", "allowed_networks": ["10.0.0.0/8"]}, "models": {"chat": {}}}
    written = effective(tmp_path, document)
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(written.model_dump(mode="json", exclude_unset=True)))
    assert settings.load(path) == written


def test_free_ports_are_chosen_once_and_differ(tmp_path: Path) -> None:
    server = effective(tmp_path).server
    assert server.port > 0
    assert server.admin_port > 0
    assert server.port != server.admin_port


@pytest.mark.parametrize(("key", "flag"), [("port", "--port"), ("admin_port", "--admin-port")])
def test_port_in_use_is_refused_with_the_fix(tmp_path: Path, key: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1:{port}: .*{flag} {port + 1}"):
            effective(tmp_path, overrides={"server": {**FREE["server"], key: port}})


def test_same_port_for_both_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConfigurationError, match="--admin-port"):
        effective(tmp_path, overrides={"server": {"port": port, "admin_port": port}})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--max-model-len", "4096"], 4096),
        (["--dtype", "float32", "--max-model-len=2048"], 2048),
        (["--max-model-len", "1", "--max-model-len", "2"], 2),
        (["--max-model-len", "32k"], None),
        (["--max-model-len"], None),
    ],
)
def test_context_length_is_found_among_vllms_flags(arguments: list[str], expected: int | None) -> None:
    assert serve.context_length(arguments) == expected


@pytest.mark.parametrize(
    ("model", "served_name", "expected"),
    [("google/gemma-3-4b-it", None, "google/gemma-3-4b-it"), ("google/gemma-3-4b-it", "gemma", "gemma")],
)
def test_name_for_clients(model: str, served_name: str | None, expected: str) -> None:
    assert Request(model, served_name=served_name).name == expected


def test_name_of_a_directory_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "my-gemma").mkdir()
    assert Request(f"{tmp_path}/my-gemma/").name == "my-gemma"


def test_engine_gets_our_flags_then_the_users(tmp_path: Path) -> None:
    request = Request(MODEL, engine_args=["--dtype", "float32"], served_name="gemma", warm_up=False)
    argv = list(serve.engine_command(request, effective(tmp_path), tmp_path).argv)
    assert argv[1:5] == ["-m", "gateway", "engine", "--supervised"]
    assert argv[5:] == [
        *(MODEL, "--uds", f"{tmp_path}/engine.sock", "--drain-seconds", "30", "--no-warm-up", "--"),
        *("--served-model-name", "gemma", "--dtype", "float32"),
    ]


def test_gateway_takes_everything_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__DRAIN_SECONDS", "7")
    loaded = effective(tmp_path)
    assert loaded.server.drain_seconds == 7
    variables = serve.gateway_command(loaded, tmp_path).environment
    assert variables is not None
    assert [name for name in variables if name.startswith("GEMMA_GATEWAY_")] == []


def test_example_is_one_that_a_shell_understands(tmp_path: Path) -> None:
    loaded = effective(tmp_path)
    words = shlex.split(serve.example(loaded, "it's"))
    assert words[:2] == ["curl", f"http://127.0.0.1:{loaded.server.port}/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == "it's"


def test_example_sends_a_key_where_one_is_needed(tmp_path: Path) -> None:
    loaded = effective(tmp_path, {"auth": {"keys_file": "keys.yaml"}})
    assert '-H "authorization: Bearer $KEY"' in serve.example(loaded, "gemma")


def test_every_address_is_shown_as_one_that_can_be_reached(tmp_path: Path) -> None:
    server = effective(tmp_path).server
    hosts = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]", "10.0.0.5": "10.0.0.5"}  # noqa: S104
    for host, shown in hosts.items():
        assert serve.base_url(server.model_copy(update={"host": host, "port": 80})) == f"http://{shown}:80"


def test_runtime_folder_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    request = Request(MODEL, runtime_dir=tmp_path / ("long" * 30), overrides=FREE)
    with pytest.raises(ConfigurationError, match="--runtime-dir"):
        serve.run(request, print, print)


def test_others_are_not_let_in_without_keys() -> None:
    request = Request(MODEL, overrides={"server": {**FREE["server"], "host": "0.0.0.0"}})  # noqa: S104
    with pytest.raises(ConfigurationError, match="keys create"):
        serve.run(request, print, print)
