"""The configuration tree: sources, refusals, defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway import settings
from gateway.errors import ConfigurationError
from gateway.settings import Family, Modality, Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text("server: {port: 1, host: 127.0.0.2}\nengines: {default: {url: 'unix:/run/engine.sock'}}\n")
    return path


def test_flags_beat_the_environment_which_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__PORT", "2")
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__ADMIN_PORT", "3")

    tree = settings.load(file, {"server": {"admin_port": 4}})

    assert (tree.server.host, tree.server.port, tree.server.admin_port) == ("127.0.0.2", 2, 4)


def test_model_takes_names_and_enumerations() -> None:
    tree = settings.load(
        None,
        {
            "engines": {"e": {"url": "http://10.0.0.1:8001/"}},
            "models": {"g": {"engine": "e", "family": "gemma3n", "modalities": ["text", "audio"]}},
        },
    )

    assert tree.engines["e"].url == "http://10.0.0.1:8001"
    assert tree.models["g"].family is Family.GEMMA3N
    assert tree.models["g"].modalities == {Modality.TEXT, Modality.AUDIO}


def test_hosts_are_read_as_they_are_compared() -> None:
    tree = settings.load(
        None, {"media": {"allowed_hosts": ["Images.Example.", "*.CDN.example"], "proxy": "http://p:1/"}}
    )
    assert tree.media.allowed_hosts == ("images.example", "*.cdn.example")
    assert tree.media.proxy == "http://p:1/"


BAD = {
    "unknown section": ({"sever": {}}, "sever: Extra inputs are not permitted"),
    "unknown key": ({"server": {"prot": 1}}, "server.prot: Extra inputs are not permitted"),
    "port out of range": ({"server": {"port": 70000}}, "server.port: Input should be less than or equal to 65535"),
    "limit of nothing": ({"limits": {"max_in_flight": 0}}, "limits.max_in_flight: Input should be greater than 0"),
    "engine without a scheme": ({"engines": {"a": {"url": "localhost:1"}}}, "engines.a.url: "),
    "engine with a path": ({"engines": {"a": {"url": "http://h:1/v1"}}}, "must be http://host:port or unix:/path"),
    "engine over TLS": ({"engines": {"a": {"url": "https://h:1"}}}, "must be http://host:port or unix:/path"),
    "model of no engine": ({"models": {"g": {}}}, "models.g.engine: no engine 'default' under engines (known: none)"),
    "catch-all of no model": (
        {"engines": {"default": {"url": "unix:/s"}}, "models": {"*": {}}},
        "models.*.served_name: the catch-all needs the engine's model name",
    ),
    "network with host bits": ({"media": {"allowed_networks": ["10.0.0.1/8"]}}, "media.allowed_networks.0"),
    "host with a scheme": ({"media": {"allowed_hosts": ["http://a.example"]}}, "media.allowed_hosts: "),
    "host with a port": ({"media": {"denied_hosts": ["a.example:80"]}}, "no scheme, port or path"),
    "host beyond ASCII": ({"media": {"denied_hosts": ["b\u00fccher.example"]}}, "such as images.example.com"),
    "star within a host": ({"media": {"allowed_hosts": ["a.*.example"]}}, "such as images.example.com"),
    "star alone": ({"media": {"allowed_hosts": ["*"]}}, "such as images.example.com"),
    "address as a host": ({"media": {"denied_hosts": ["10.0.0.1"]}}, "denied_networks"),
    "network as a host": ({"media": {"denied_hosts": ["10.0.0.0/8"]}}, "media.denied_hosts: "),
    "proxy without a port": ({"media": {"proxy": "http://proxy"}}, "media.proxy: "),
    "proxy over TLS": ({"media": {"proxy": "https://proxy:1"}}, "must be http://host:port"),
    "proxy with a password": ({"media": {"proxy": "http://me:secret@proxy:1"}}, "must be http://host:port"),
    "too little room for one": ({"media": {"max_bytes_in_flight": 1}}, "max_bytes_in_flight must be at least"),
}


@pytest.mark.parametrize(("tree", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_configuration_is_refused_naming_the_key(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings.load(None, tree)

    assert message in str(refusal.value)


@pytest.mark.parametrize("text", ["[1, 2]", "server: {", "just words"])
def test_file_that_is_no_mapping_is_refused_naming_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=r"broken\.yaml"):
        settings.load(path)


def test_missing_file_is_refused_and_an_empty_one_is_the_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        settings.load(tmp_path / "none.yaml")

    (tmp_path / "empty.yaml").touch()
    assert settings.load(tmp_path / "empty.yaml") == settings.load()


def test_every_key_has_a_description() -> None:
    def undescribed(model: type[BaseModel]) -> list[str]:
        return [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]

    sections = [field.annotation for field in Settings.model_fields.values()]
    models = [m for m in sections if isinstance(m, type) and issubclass(m, BaseModel)]
    assert len(models) == 7
    models += [settings.EngineSettings, settings.ModelSettings]
    assert [name for model in models for name in undescribed(model)] == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],  # noqa: S104
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert settings.is_loopback(host) is expected
