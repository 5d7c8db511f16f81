"""The configuration tree: sources, refusals, defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway import settings
from gateway.errors import ConfigurationError
from gateway.settings import Family, Modality, ModelSettings, Settings
from gateway.settings.consistency import FACTS


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
    "unknown section": ({"sever": {}}, "sever: no such key; did you mean `server`?"),
    "unknown key": ({"server": {"prot": 1}}, "server.prot: no such key; did you mean `port`?"),
    "port out of range": ({"server": {"port": 70000}}, "server.port: must be less than or equal to 65535"),
    "limit of nothing": ({"limits": {"max_in_flight": 0}}, "limits.max_in_flight: must be greater than 0"),
    "engine without a scheme": ({"engines": {"a": {"url": "localhost:1"}}}, "engines.a.url: "),
    "engine with a path": ({"engines": {"a": {"url": "http://h:1/v1"}}}, "must be http://host:port or unix:/path"),
    "engine over TLS": ({"engines": {"a": {"url": "https://h:1"}}}, "must be http://host:port or unix:/path"),
    "model of no engine": ({"models": {"g": {}}}, "models.g.engine: no engine 'default' under engines (known: none)"),
    "network with host bits": (
        {"media": {"allowed_networks": ["10.0.0.1/8"]}},
        "media.allowed_networks.0: 10.0.0.1/8 has host bits set; write 10.0.0.0/8",
    ),
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


#: What stands in a file, and the lines of the message below its first.
WORDS: dict[str, tuple[str, list[str]]] = {
    "key of a model": ("models: {a: {hiden: true}}", ["models.a.hiden: no such key; did you mean `hidden`?"]),
    "key of a target": (
        "models: {a: {targets: [{model: b, wight: 1}]}}",
        ["models.a.targets.0.wight: no such key; did you mean `weight`?"],
    ),
    "key of a provider": (
        "auth: {jwt: {x: {issuer: 'https://a', audience: [a], audiences: [b]}}}",
        ["auth.jwt.x.audiences: no such key; did you mean `audience`?"],
    ),
    "key like no other": (
        "logs: {colour: true}",
        ["logs.colour: no such key; there are: level, format"],
    ),
    "text for a list": (
        "auth: {trusted_proxies: 10.0.0.0/8}",
        ["auth.trusted_proxies: must be a list, such as [10.0.0.0/8]"],
    ),
    "text for a set": (
        "models: {a: {modalities: text}}",
        ["models.a.modalities: must be a list, such as [text]"],
    ),
    "nothing for a list": ("models: {a: {fallbacks: }}", ["models.a.fallbacks: must be a list; write [] for none"]),
    "text for a mapping": ("models: nope", ["models: must be a mapping of keys to values"]),
    "nothing for a section": ("server:", ["server: must be a mapping of keys to values; write {} for none"]),
    "list of nothing": (
        "auth: {jwt: {x: {issuer: 'https://a', audience: []}}}",
        ["auth.jwt.x.audience: must have at least one item"],
    ),
    "missing key": (
        "auth: {jwt: {x: {audience: [a]}}}",
        ["auth.jwt.x.issuer: is missing; add it"],
    ),
    "faulty item of a list that needs one": (
        "auth: {jwt: {x: {issuer: 'https://a', audience: [a], algorithms: [HS256]}}}",
        [
            "auth.jwt.x.algorithms.0: must be 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', "
            "'ES512' or 'EdDSA'"
        ],
    ),
    "network with host bits": (
        "auth: {trusted_proxies: [10.0.0.1/8, 'fd00::1/8']}",
        [
            "auth.trusted_proxies.0: 10.0.0.1/8 has host bits set; write 10.0.0.0/8",
            "auth.trusted_proxies.1: fd00::1/8 has host bits set; write fd00::/8",
        ],
    ),
    "no network": (
        "media: {denied_networks: [office, 10]}",
        [
            "media.denied_networks.0: must be a network such as 10.0.0.0/8 or fd00::/8, not 'office'",
            "media.denied_networks.1: must be a network such as 10.0.0.0/8 or fd00::/8, not 10",
        ],
    ),
    "day that is in no calendar": (
        "models: {a: {deprecated: {since: 2026-02-30}}}",
        ["models.a.deprecated.since: must be a date of the calendar, such as 2026-01-31"],
    ),
    "number for text": ("models: {a: {served_name: 5}}", ["models.a.served_name: must be text; write it in quotes"]),
    "text for a number": ("server: {port: eighty}", ["server.port: must be a whole number"]),
    "text for true or false": ("server: {access_log: maybe}", ["server.access_log: must be true or false"]),
    "our own of one field": (
        "engines: {r: {url: 'ftp://x'}}",
        ["engines.r.url: must be http://host:port or unix:/path/to/socket"],
    ),
    "our own across sections": (
        "models: {a: {}, b: {}}",
        [f"models.{name}.engine: no engine 'default' under engines (known: none)" for name in "ab"],
    ),
}


@pytest.mark.parametrize(("text", "lines"), WORDS.values(), ids=WORDS.keys())
def test_fault_is_told_in_an_operators_words(tmp_path: Path, text: str, lines: list[str]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError) as refusal:
        settings.load(path)

    assert str(refusal.value).splitlines() == [f"configuration {path} is invalid:", *(f"  {line}" for line in lines)]


def test_name_that_is_no_text_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"models\.5: a name must be text; write it in quotes, '5'"):
        settings.load(None, {"models": {5: {}}})


def test_value_of_the_environment_is_told_by_its_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__PROT", "1")
    monkeypatch.setenv("Gemma_Gateway_Auth__Trusted_Proxies", '["10.0.0.1/8"]')

    with pytest.raises(ConfigurationError) as refusal:
        settings.load(file)

    assert str(refusal.value).splitlines() == [
        "the configuration is invalid:",
        "  environment variable GEMMA_GATEWAY_SERVER__PROT: server.prot: no such key; did you mean `port`?",
        "  environment variable Gemma_Gateway_Auth__Trusted_Proxies: auth.trusted_proxies.0: 10.0.0.1/8 has host bits "
        "set; write 10.0.0.0/8",
    ]


def test_value_of_a_flag_is_not_laid_upon_the_variable_that_it_beats(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMA_GATEWAY_SERVER__PORT", "1")

    with pytest.raises(ConfigurationError) as refusal:
        settings.load(file, {"server": {"port": "eighty"}})

    assert "GEMMA_GATEWAY" not in str(refusal.value)
    assert "server.port: must be a whole number" in str(refusal.value)


def test_variable_that_is_not_the_json_it_has_to_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_GATEWAY_AUTH__TRUSTED_PROXIES", "10.0.0.0/8")

    with pytest.raises(ConfigurationError, match=r"GEMMA_GATEWAY_AUTH__TRUSTED_PROXIES; lists and sections .* JSON"):
        settings.load()


TARGETS = [{"model": "g"}]
#: What stands under `models`, beside a model `g`, an adapter `lora` of it, and an alias `gpt` of it.
BAD_MODELS = {
    "catch-all of no model": (
        {"*": {}},
        "models.*.served_name: the catch-all needs the engine's model name, or targets",
    ),
    "no name": ({"": {}}, "models.'': a name cannot be empty or hold control characters"),
    "name of two lines": ({"a\nb": {}}, "models.'a\\nb': a name cannot be empty or hold control characters"),
    "target that is not there": (
        {"x": {"targets": [{"model": "y"}]}},
        "models.x.targets: no model 'y' under models (known: g, gpt, lora, x); add it there or correct the name",
    ),
    "target with targets": (
        {"x": {"targets": [{"model": "gpt"}]}},
        "models.x.targets: 'gpt' has targets itself; name one that it stands for, such as 'g'",
    ),
    "target with targets that have targets": (
        {"x": {"targets": [{"model": "y"}]}, "y": {"targets": [{"model": "gpt"}]}},
        "models.x.targets: 'y' has targets itself; name one that it stands for, such as 'g'",
    ),
    "targets in a circle": (
        {"x": {"targets": [{"model": "y"}]}, "y": {"targets": [{"model": "x"}]}},
        "models.x.targets: 'y' has targets itself; name a model without targets",
    ),
    "fallback to a name for itself": (
        {"x": {"fallbacks": ["y"]}, "y": {"targets": [{"model": "x"}, {"model": "g"}]}},
        "models.x.fallbacks: 'y' has targets itself; name one that it stands for, such as 'g'",
    ),
    "sticky without targets": (
        {"x": {"sticky": "user"}},
        "models.x.sticky: only a name with targets has requests to deal out; add targets or remove it",
    ),
    "target of itself": ({"x": {"targets": [{"model": "x"}]}}, "models.x.targets: 'x' refers to itself"),
    "catch-all as target": (
        {"x": {"targets": [{"model": "*"}]}, "*": {"served_name": "g"}},
        "models.x.targets: '*' stands for every other name; name a model",
    ),
    "target twice": ({"x": {"targets": TARGETS * 2}}, "models.x.targets: 'g' stands here twice; remove one"),
    "targets without weight": (
        {"x": {"targets": [{"model": "g", "weight": 0}]}},
        "models.x.targets: every weight is 0, so that nothing could answer; give one target a weight above 0",
    ),
    "target of negative weight": (
        {"x": {"targets": [{"model": "g", "weight": -1}]}},
        "models.x.targets.0.weight: must be greater than or equal to 0",
    ),
    "targets and an engine": (
        {"x": {"targets": TARGETS, "engine": "default"}},
        "models.x.engine: a name with targets has those of the model that answers; set it there and remove it here",
    ),
    "targets and a served name": ({"x": {"targets": TARGETS, "served_name": "x"}}, "models.x.served_name: a name with"),
    "targets and a base": ({"x": {"targets": TARGETS, "base": "g"}}, "models.x.base: a name with targets"),
    "fallback that is not there": ({"x": {"fallbacks": ["y"]}}, "models.x.fallbacks: no model 'y' under models"),
    "fallback with targets": ({"x": {"fallbacks": ["gpt"]}}, "models.x.fallbacks: 'gpt' has targets itself"),
    "fallback to itself": ({"x": {"fallbacks": ["x"]}}, "models.x.fallbacks: 'x' refers to itself"),
    "fallback twice": ({"x": {"fallbacks": ["g", "g"]}}, "models.x.fallbacks: 'g' stands here twice"),
    "adapter of nothing": ({"x": {"base": "y", "served_name": "x"}}, "models.x.base: no model 'y' under models"),
    "adapter of itself": ({"x": {"base": "x", "served_name": "x"}}, "models.x.base: 'x' refers to itself"),
    "adapter of an adapter": (
        {"x": {"base": "lora", "served_name": "x"}},
        "models.x.base: 'lora' is an adapter itself; name the model that it is made for, 'g'",
    ),
    "adapter of an alias": ({"x": {"base": "gpt", "served_name": "x"}}, "models.x.base: 'gpt' has targets itself"),
    "adapter without a name": (
        {"x": {"base": "g"}},
        "models.x.served_name: an adapter needs the name that its engine has it under (--lora-modules NAME=PATH)",
    ),
    "adapter with an engine": (
        {"x": {"base": "g", "served_name": "x", "engine": "default"}},
        "models.x.engine: an adapter has that of the model that answers; set it there and remove it here",
    ),
    "successor that is not there": (
        {"x": {"deprecated": {"since": "2026-01-01", "successor": "y"}}},
        "models.x.deprecated.successor: no model 'y' under models",
    ),
    "successor of itself": (
        {"x": {"deprecated": {"since": "2026-01-01", "successor": "x"}}},
        "models.x.deprecated.successor: 'x' refers to itself",
    ),
    "sunset before the deprecation": (
        {"x": {"deprecated": {"since": "2026-01-02", "sunset": "2026-01-01"}}},
        "models.x.deprecated.sunset: it is before since, 2026-01-02; choose that day or a later one",
    ),
    "field that is no JSON": (
        {"x": {"defaults": {"a": {"b": 1j}}}},
        "models.x.defaults.a: it cannot be written as JSON",
    ),
}


@pytest.mark.parametrize(("models", "message"), BAD_MODELS.values(), ids=BAD_MODELS.keys())
def test_models_that_do_not_fit_together_are_refused_naming_the_key(models: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        _with_models(models)

    assert message in str(refusal.value)


FIELDS = {
    **dict.fromkeys(["model", "messages", "input", "prompt", "stream"], "what a request asks cannot be set for all"),
    **dict.fromkeys(
        ["request_id", "kv_transfer_params", "ec_transfer_params", "cache_salt", "priority"],
        "the gateway alone tells engines that; remove it",
    ),
}


@pytest.mark.parametrize("where", ["defaults", "overrides"])
@pytest.mark.parametrize(("field", "message"), FIELDS.items())
def test_fields_that_are_the_clients_or_the_gateways_cannot_be_set(where: str, field: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        _with_models({"x": {where: {field: None}}})

    assert f"models.x.{where}.{field}: {message}" in str(refusal.value)


@pytest.mark.parametrize("kind", [{"targets": TARGETS}, {"base": "g", "served_name": "x"}], ids=["alias", "adapter"])
@pytest.mark.parametrize("fact", FACTS)
def test_facts_of_another_model_cannot_be_set(kind: dict[str, object], fact: str) -> None:
    default = ModelSettings().model_dump(mode="json")[fact]

    with pytest.raises(ConfigurationError, match=rf"models\.x\.{fact}: .* set it there and remove it here"):
        _with_models({"x": {**kind, fact: default}})


def test_facts_are_what_a_model_is_and_not_what_is_done_by_its_name() -> None:
    by_name = {"targets", "sticky", "fallbacks", "defaults", "overrides", "deprecated", "hidden", "limits"}
    by_name |= {"engine", "served_name", "base", "owned_by", "response_model"}

    assert set(FACTS) == set(ModelSettings.model_fields) - by_name


def test_every_fault_of_the_models_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        _with_models({"x": {"engine": "y", "fallbacks": ["z"]}, "w": {"base": "v"}})

    keys = [line.split(":")[0].strip() for line in str(refusal.value).splitlines()[1:]]
    assert keys == ["models.x.engine", "models.x.fallbacks", "models.w.base", "models.w.served_name"]


@pytest.mark.parametrize(
    "models",
    [{"x": {"targets": [{"model": "x"}]}}, {"*": {"targets": TARGETS}, "x": {"targets": [{"model": "*"}]}}],
    ids=["itself", "catch-all"],
)
def test_name_that_cannot_be_a_target_is_told_once(models: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        _with_models(models)

    assert len(str(refusal.value).splitlines()) == 2


def test_names_may_share_models_go_away_and_fall_back() -> None:
    tree = _with_models(
        {
            "x": {"targets": [{"model": "g", "weight": 95}, {"model": "lora", "weight": 5}], "fallbacks": ["lora"]},
            "old": {"targets": TARGETS, "deprecated": {"since": "2026-01-01", "successor": "gpt"}},
            "*": {"targets": TARGETS, "overrides": {"logit_bias": {5: 1.5}}},
        }
    )

    assert set(tree.models) == {"g", "lora", "gpt", "x", "old", "*"}


def _with_models(models: dict[str, object]) -> Settings:
    sound = {"g": {}, "lora": {"base": "g", "served_name": "lora"}, "gpt": {"targets": TARGETS}}
    return settings.load(None, {"engines": {"default": {"url": "unix:/s"}}, "models": sound | models})


@pytest.mark.parametrize("text", ["[1, 2]", "server: {", "just words"])
def test_file_that_is_no_mapping_is_refused_naming_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=r"broken\.yaml"):
        settings.load(path)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"server: {}\nmodels: {caf\xe9: {}}\n", "it is not UTF-8 (line 2); save it as UTF-8"),
    "UTF-16": ("server: {}".encode("utf-16"), "it is not UTF-8 (line 1)"),
    "section twice": (
        b"models: {}\nengines: {}\nmodels: {}\n",
        "'models' stands twice in one mapping, in line 1 and in line 3; remove one of the two",
    ),
    "key twice further in": (b"server:\n  port: 1\n  port: 1\n", "'port' stands twice"),
    "key twice in what is brought in elsewhere": (
        b"models:\n  a: &a {hidden: true, hidden: false}\n  b: {<<: *a}\n",
        "'hidden' stands twice",
    ),
    "no YAML": (b"server: {\n  port: 1\n", "(line 3, column 1)"),
    "value unlike its tag": (b"server: {port: !!int eighty}", "a value is not what its tag says"),
    "tag of Python": (b"server: !!python/object:os.system {}", "could not determine a constructor"),
    "control character": (b"server:\n  host: \x07", "control characters are not allowed (line 2)"),
    "two documents": (b"server: {}\n---\nserver: {}\n", "but found another document (line 2, column 1)"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_file_that_cannot_be_understood_is_refused_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"broken\.yaml") as refusal:
        settings.load(path)

    assert message in str(refusal.value)


def test_excerpt_of_the_file_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("quotas: {store: {url: 'redis://:secret@host', prefix: [}}")

    with pytest.raises(ConfigurationError) as refusal:
        settings.load(path)

    assert "secret" not in str(refusal.value)


def test_names_are_text_as_they_are_written_and_what_is_brought_in_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "engines: {default: {url: 'unix:/s'}}\n"
        "models:\n"
        "  yes: &model {hidden: true, owned_by: us, overrides: {logit_bias: {5: 1}}}\n"
        "  5: {<<: *model, hidden: false}\n"
        "  2026-01-01: {deprecated: {since: 2026-01-01}}\n"
    )
    models = settings.load(path).models

    assert list(models) == ["yes", "5", "2026-01-01"]
    assert (models["5"].hidden, models["5"].owned_by) == (False, "us")
    assert models["yes"].overrides == {"logit_bias": {"5": 1}}
    assert str(models["2026-01-01"].deprecated and models["2026-01-01"].deprecated.since) == "2026-01-01"


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
    assert len(models) == 8
    models += [settings.EngineSettings, settings.ModelSettings]
    assert [name for model in models for name in undescribed(model)] == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],  # noqa: S104
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert settings.is_loopback(host) is expected
