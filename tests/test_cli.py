"""Commands: what they understand, what they print, how they end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway import cli
from gateway.settings import Settings


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def commands(group: click.Group = cli.main, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_and_option_explains_itself(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    command: click.Command = cli.main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.hidden and not p.help]
    assert silent == []


def test_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"gemma-gateway, version \d+\.\d+\.\d+\n", run("--version").output)


def test_module_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("gemma-gateway, version")


def test_every_setting_with_a_flag_is_in_the_tree() -> None:
    for section, key, model in cli.FLAGS:
        assert Settings.model_fields[section].annotation is model
        assert key in model.model_fields


def test_flags_become_the_tree_that_the_file_would_be() -> None:
    given = {"server__port": "8010", "server__host": None, "media__folder": "photos"}
    assert cli.overrides(given) == {"server": {"port": "8010"}, "media": {"folder": "photos"}}


@pytest.mark.parametrize(
    ("section", "key", "flag"),
    [
        ("server", "admin_port", "--admin-port"),
        ("auth", "keys_file", "--keys-file"),
        ("media", "folder", "--media-folder"),
        ("logs", "level", "--log-level"),
    ],
)
def test_name_of_a_flag(section: str, key: str, flag: str) -> None:
    assert cli.flag_of(section, key) == flag


def test_configuration_fault_is_a_message_and_exit_code_2() -> None:
    result = run("gateway", "--port", "eighty")
    assert result.exit_code == 2
    assert "server.port" in result.stderr
    assert "Traceback" not in result.output


def test_gateway_without_engines_says_how_to_name_one() -> None:
    result = run("gateway")
    assert result.exit_code == 2
    assert "engines:" in result.stderr


@pytest.mark.parametrize("command", ["serve", "engine"])
def test_vllms_flags_before_the_model_are_refused(command: str) -> None:
    result = run(command, "--max-model-len", "2048", "model")
    assert result.exit_code == 2
    assert "MODEL comes first" in result.stderr


def test_engine_listens_in_one_place() -> None:
    result = run("engine", "model", "--uds", "socket", "--port", "8001")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def test_check_accepts_a_good_configuration(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("engines: {a: {url: 'http://a:8000'}}\nmodels: {gemma: {engine: a}, chat: {engine: a}}\n")
    result = run("config", "check", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file} is good: 1 engine(s), 2 model name(s).\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sever: {}", "sever: Extra inputs are not permitted"),
        ("server: {host: 0.0.0.0}", "without API keys"),
        ("auth: {keys_file: /nowhere/keys.yaml}", "there is no key file"),
        ("models: {a: {engine: b}}", "no engine 'b'"),
    ],
)
def test_check_explains_a_faulty_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    result = run("config", "check", file)
    assert result.exit_code == 2
    assert message in result.stderr


def test_reference_is_printed_as_markdown() -> None:
    assert run("config", "reference").stdout.startswith("# Configuration\n")


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    made = run("keys", "create", "--file", file, "--name", "Ada", "--expires-in", "90d")
    assert re.fullmatch(r"sk-gemma-[0-9a-f]{10}-[\w-]{43}\n", made.stdout)
    identity = made.stdout.split("-")[2]

    listed = run("keys", "list", "--file", file)
    assert re.fullmatch(rf"{identity}  Ada  since [\d-]+  until [\d: -]+ UTC\n", listed.stdout)

    assert run("keys", "revoke", "--file", file, identity).stdout == f"Revoked {identity} (Ada).\n"
    assert yaml.safe_load(file.read_text()) == {"keys": []}


@pytest.mark.parametrize("text", ["90", "0d", "-1d", "2w", "1.5h", "d"])
def test_lifetime_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    result = run("keys", "create", "--file", tmp_path / "keys.yaml", "--name", "Ada", "--expires-in", text)
    assert result.exit_code == 2
    assert "such as 90d" in result.stderr


def test_shapes_that_a_family_lacks_are_refused(tmp_path: Path) -> None:
    result = run("demo-model", tmp_path / "model", "--family", "gemma3", "--shape", "moe")
    assert result.exit_code == 2
    assert "--shape" in result.stderr
