"""Commands: what they understand, what they print, how they end."""

from __future__ import annotations

import json
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

GOOD = "engines: {a: {url: 'http://a:8000'}}\nmodels: {gemma: {engine: a}, chat: {engine: a}}\n"


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
    file.write_text(GOOD)
    result = run("config", "check", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file} is good: 1 engine(s), 2 model name(s).\n"
    assert result.stderr == ""


def test_check_accepts_one_port_at_two_addresses_and_free_ones(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    for server in ("{port: 9090, admin_host: 127.0.0.2}", "{port: 0, admin_port: 0}"):
        file.write_text(f"{GOOD}server: {server}\n")
        assert run("config", "check", file).exit_code == 0


def test_check_warns_of_models_that_no_name_matches_and_still_says_good(tmp_path: Path, key_file: Path) -> None:
    identity = made(key_file, "--model", "gema", "--model", "gem*").split("-")[2]
    made(key_file, "--model", "gema")
    file = tmp_path / "gateway.yaml"
    grants = (
        "{issuer: 'https://id.example', audience: [gemma], grant_claim: groups, grants: {staff: {models: [lama-*]}}}"
    )
    file.write_text(f"{GOOD}auth: {{keys_file: {key_file}, jwt: {{corp: {grants}}}}}\n")

    result = run("config", "check", file)

    assert result.exit_code == 0
    assert "is good" in result.stdout
    assert result.stderr.splitlines() == [
        "warning: no name under models matches 'lama-*', which auth.jwt.corp.grants.staff may use",
        f"warning: no name under models matches 'gema', which the key {identity} (Ada) and 1 more may use",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}sever: {{}}", "sever: no such key; did you mean `server`?"),
        (f"{GOOD}server: {{host: 0.0.0.0}}", "without API keys"),
        (f"{GOOD}auth: {{keys_file: /nowhere/keys.yaml}}", "there is no key file"),
        (f"{GOOD}server: {{port: 9090}}", "server.port and server.admin_port are both 9090"),
        (f"{GOOD}server: {{port: 9090, host: '::', admin_host: 10.0.0.1}}", "are both 9090"),
        (f"{GOOD}server: {{port: 9090, host: localhost}}", "are both 9090"),
        (f"{GOOD}models: {{}}", "'models' stands twice in one mapping, in line 2 and in line 3"),
        ("", "no engine is configured"),
        ("engines: {a: {url: 'http://a:8000'}}", "gemma: {engine: a, served_name: google/gemma-3-4b-it}"),
        ("models: {a: {engine: b}}", "no engine 'b'"),
    ],
)
def test_check_explains_a_faulty_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    result = run("config", "check", file)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engines: {default: {url: 'http://a:8000'}}", "no model is configured"),
        (f"{GOOD}server: {{port: 9090}}", "server.port and server.admin_port are both 9090"),
    ],
)
def test_gateway_does_not_start_with_what_check_refuses(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    result = run("gateway", "--config", file)
    assert result.exit_code == 2
    assert message in result.stderr


def test_reference_is_printed_as_markdown() -> None:
    assert run("config", "reference").stdout.startswith("# Configuration\n")


def made(file: Path, *options: str) -> str:
    """A new key of Ada's in that file."""
    result = run("keys", "create", "--file", file, "--name", "Ada", *options)
    assert result.exit_code == 0
    return result.stdout.strip()


def verify(file: Path, key: str) -> Result:
    return CliRunner().invoke(cli.main, ["keys", "verify", "--file", str(file)], input=key)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_created_key_alone_is_on_standard_output(key_file: Path) -> None:
    result = run("keys", "create", "--file", key_file, "--name", "Ada")
    assert re.fullmatch(r"sk-gemma-[0-9a-f]{10}-[\w-]{43}\n", result.stdout)
    assert result.stderr == f"A key for Ada. Keep it now: only its hash is in {key_file}.\n"


def test_every_restriction_of_a_key_can_be_given(key_file: Path) -> None:
    made(
        key_file,
        *("--expires-in", "90d", "--model", "gemma", "--model", "gemma-*", "--endpoint", "/v1/chat/completions"),
        *("--modality", "image", "--requests-per-minute", "60", "--tokens-per-minute", "5000", "--priority", "-3"),
        *("--tokens-per-day", "90000", "--max-in-flight", "4", "--metadata", "team=x", "--metadata", "use=a=b"),
    )
    (record,) = yaml.safe_load(key_file.read_text())["keys"]
    restrictions = {name: record[name] for name in list(record)[5:]}
    assert restrictions == {
        "models": ["gemma", "gemma-*"],
        "endpoints": ["/v1/chat/completions"],
        "modalities": ["image"],
        "limits": {
            "requests_per_minute": 60,
            "tokens_per_minute": 5000,
            "tokens_per_day": 90000,
            "max_in_flight": 4,
        },
        "priority": -3,
        "metadata": {"team": "x", "use": "a=b"},
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--endpoint", "/v1/chat", "/v1/chat/completions"),
        ("--modality", "smell", "video"),
        ("--priority", "1001", "-1000<=x<=1000"),
        ("--requests-per-minute", "0", "x>=1"),
        ("--metadata", "team", "team=search"),
        ("--metadata", "=x", "team=search"),
        *(("--expires-in", text, "such as 90d") for text in ("90", "0d", "-1d", "2w", "1.5h", "d")),
    ],
)
def test_option_of_a_key_that_makes_no_sense_is_refused(key_file: Path, option: str, value: str, message: str) -> None:
    result = run("keys", "create", "--file", key_file, "--name", "Ada", option, value)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not key_file.exists()


def test_keys_are_listed_in_columns(key_file: Path) -> None:
    ada = made(key_file, "--expires-in", "90d", "--model", "gemma", "--requests-per-minute", "60").split("-")[2]
    bob = run("keys", "create", "--file", key_file, "--name", "Bob the builder").stdout.split("-")[2]
    run("keys", "rotate", "--file", key_file, bob)
    lines = run("keys", "list", "--file", key_file).stdout.splitlines()
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.fullmatch(r"ID +NAME +CREATED +EXPIRES +MAY +ROTATING", lines[0])
    assert re.fullmatch(rf"{ada}  Ada              [\d-]{{10}}  {moment}  gemma; 60 requests/min", lines[1])
    assert re.fullmatch(
        rf"{bob}  Bob the builder  [\d-]{{10}}  never {{15}}  everything {{12}}  until {moment}", lines[2]
    )


def test_keys_are_listed_as_json_without_hashes(key_file: Path) -> None:
    made(key_file, "--metadata", "team=x")
    (shown,) = json.loads(run("keys", "list", "--file", key_file, "--json").stdout)
    assert list(shown) == ["id", "name", "created", "metadata", "expired", "rotating_until"]
    assert (shown["name"], shown["metadata"], shown["expired"]) == ("Ada", {"team": "x"}, False)


def test_revoked_key_leaves_the_file(key_file: Path) -> None:
    identity = made(key_file).split("-")[2]
    assert run("keys", "revoke", "--file", key_file, identity).stdout == f"Revoked {identity} (Ada).\n"
    assert yaml.safe_load(key_file.read_text()) == {"keys": []}


def test_rotation_prints_the_new_key_and_tells_of_the_old_ones(key_file: Path) -> None:
    first = made(key_file)
    second = run("keys", "rotate", "--file", key_file, first.split("-")[2], "--overlap", "7d")
    third = run("keys", "rotate", "--file", key_file, first.split("-")[2], "--overlap", "0h", "--expires-in", "1h")
    assert re.fullmatch(rf"{first[:19]}-[\w-]{{43}}\n", second.stdout)
    assert "The old one is valid until" in second.stderr
    assert "The old one is valid no more" in third.stderr
    assert "An even older one" in third.stderr
    assert "The key itself expires" in third.stderr
    assert [verify(key_file, key).exit_code for key in (first, second.stdout, third.stdout)] == [1, 1, 0]


def test_verified_key_is_explained(key_file: Path) -> None:
    key = made(key_file, "--model", "gemma", "--modality", "audio", "--metadata", "team=x")
    result = verify(key_file, f"{key}\n")
    assert result.exit_code == 0
    assert result.stdout == (f"Valid: {key.split('-')[2]} (Ada)\nexpires: never\nmay: gemma; audio, text\nteam: x\n")


def test_old_secret_is_verified_as_such(key_file: Path) -> None:
    key = made(key_file)
    run("keys", "rotate", "--file", key_file, key)
    result = verify(key_file, key)
    assert result.exit_code == 0
    assert "replaced by a new secret; this one is valid until" in result.stdout


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        ("{key}x", "has another secret"),
        ("{key}\xe9", "has another secret"),
        ("sk-gemma-0000000000-secret", "no such key"),
        ("", "no such key"),
    ],
)
def test_key_that_is_not_valid_is_told_so_without_repeating_it(key_file: Path, presented: str, reason: str) -> None:
    key = made(key_file)
    result = verify(key_file, presented.format(key=key))
    assert (result.exit_code, result.stdout) == (1, "")
    assert reason in result.stderr
    assert key[20:40] not in result.stderr


def test_file_that_cannot_be_read_makes_no_key_invalid(key_file: Path) -> None:
    result = verify(key_file, "sk-gemma-0000000000-secret")
    assert result.exit_code == 2
    assert "there is no key file" in result.stderr


def test_secret_for_kubernetes_holds_the_file_as_it_is(key_file: Path) -> None:
    made(key_file)
    key_file.write_text(f"# ours\n{key_file.read_text()}")
    result = run("keys", "secret", "--file", key_file, "--name", "team-keys", "--namespace", "llm")
    assert yaml.safe_load(result.stdout) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "team-keys", "namespace": "llm"},
        "type": "Opaque",
        "stringData": {"keys.yaml": key_file.read_text()},
    }
    assert "  keys.yaml: |\n    # ours\n    keys:\n" in result.stdout


def test_secret_is_called_gemma_keys_and_is_in_kubectls_namespace_unless_told_otherwise(key_file: Path) -> None:
    made(key_file)
    assert yaml.safe_load(run("keys", "secret", "--file", key_file).stdout)["metadata"] == {"name": "gemma-keys"}


@pytest.mark.parametrize("option", [("--name", "Team_Keys"), ("--name", "a-"), ("--namespace", "a.b")])
def test_secret_with_a_name_that_kubernetes_refuses_is_refused(key_file: Path, option: tuple[str, str]) -> None:
    made(key_file)
    result = run("keys", "secret", "--file", key_file, *option)
    assert result.exit_code == 2
    assert "no name in Kubernetes" in result.stderr


def test_file_too_large_for_a_secret_is_refused_with_the_fix(key_file: Path) -> None:
    made(key_file)
    key_file.write_text(f"{key_file.read_text()}# {'x' * 1024 * 1024}\n")
    result = run("keys", "secret", "--file", key_file)
    assert result.exit_code == 2
    assert "auth.keys_directory" in result.stderr


def test_page_about_keys_names_every_command_and_no_option_that_is_not_there() -> None:
    page = (Path(__file__).parent.parent / "docs" / "keys.md").read_text()
    group = cli.main.commands["keys"]
    assert isinstance(group, click.Group)
    assert [name for name in group.commands if f"gemma-gateway keys {name} " not in page] == []
    options = {option for command in group.commands.values() for each in command.params for option in each.opts}
    others = {"--config", "--keys-file", "--server-side"}
    assert set(re.findall(r"--[a-z][a-z-]+", page)) - others <= options


def test_shapes_that_a_family_lacks_are_refused(tmp_path: Path) -> None:
    result = run("demo-model", tmp_path / "model", "--family", "gemma3", "--shape", "moe")
    assert result.exit_code == 2
    assert "--shape" in result.stderr
