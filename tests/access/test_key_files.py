"""Files of keys: what they may hold, how faults are told, and when they count as changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import key_files, key_yaml
from gateway.access.key_files import KeyFile, KeyRecord, Previous
from gateway.access.keys import KeyStore
from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import AuthSettings, Endpoint, Grant, Limits, Modality

KEY = "sk-gemma-0a1b2c-the-secret_of-tests"


def record(identity: str = "0a1b2c") -> str:
    """A record as the first version wrote it."""
    digest = sha256(KEY.replace("0a1b2c", identity).encode()).hexdigest()
    return f"- id: '{identity}'\n  name: tests\n  sha256: '{digest}'\n  created: '2026-01-01T00:00:00Z'\n"


RECORD = record()
FULL = KeyRecord(
    id="0a1b2c",
    name="Ada 🔑",
    sha256="0" * 64,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    expires=datetime(2027, 1, 1, tzinfo=UTC),
    previous=Previous(sha256="1" * 64, expires=datetime(2026, 2, 1, tzinfo=UTC)),
    models=("gemma", "gemma-*"),
    endpoints=frozenset({Endpoint.CHAT, Endpoint.MESSAGES}),
    modalities=frozenset({Modality.IMAGE}),
    limits=Limits(requests_per_minute=60),
    priority=-5,
    metadata={"team": "search", "cost centre": "007"},
)
#: Text that YAML would take for something else.
TRICKY = [
    "null",
    "~",
    "",
    "<<",
    "=",
    "5",
    "1e3",
    "0x1f",
    "true",
    "no",
    "2026-01-01",
    "- a",
    "a: b",
    "# a",
    "&a",
    "*a",
    "---",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.mkdir()
    return made


def mount(folder: Path, version: str, text: str) -> None:
    """What the kubelet does: a new hidden folder, and `..data` pointed at it in one step."""
    (folder / version).mkdir()
    (folder / version / "keys.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").replace(folder / "..data")
    if not (folder / "keys.yaml").is_symlink():
        (folder / "keys.yaml").symlink_to("..data/keys.yaml")


def read_text(path: Path, text: str) -> KeyFile:
    path.write_text(text)
    return key_files.read(path)


def test_file_of_the_first_version_is_read_and_restricts_nothing(path: Path) -> None:
    (found,) = read_text(path, f"keys:\n{RECORD}").keys
    assert (found.id, found.name, found.grant, found.metadata) == ("0a1b2c", "tests", Grant(), {})


def test_everything_a_key_may_have_is_written_flat_and_read_back(path: Path) -> None:
    assert read_text(path, KeyFile(keys=(FULL,)).text()).keys == (FULL,)
    assert list(FULL.document()) == [
        "id",
        "name",
        "sha256",
        "created",
        "expires",
        "previous",
        "models",
        "endpoints",
        "modalities",
        "limits",
        "priority",
        "metadata",
    ]
    assert set(FULL.document()) == set(KeyRecord.model_fields)


@given(
    name=st.text(),
    metadata=st.dictionaries(*[st.text() | st.sampled_from(TRICKY)] * 2),
)
def test_any_text_is_written_so_that_it_is_read_back(name: str, metadata: dict[str, str]) -> None:
    odd = FULL.model_copy(update={"name": name, "metadata": metadata})
    tree = key_yaml.load(KeyFile(keys=(odd, FULL)).text().encode())
    assert KeyFile.model_validate(tree).keys == (odd, FULL)


def test_what_was_not_set_is_not_written() -> None:
    bare = KeyRecord(id="a", name="b", sha256="0" * 64, created=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(bare.document()) == ["id", "name", "sha256", "created"]
    assert list(bare.model_copy(update={"models": ()}).document()) == ["id", "name", "sha256", "created", "models"]


def test_key_by_hand_may_share_limits_with_others_and_lack_quotes_and_zones(path: Path) -> None:
    digits = record("1234567890").replace("'", "")
    text = (
        f"keys:\n{digits}  limits: &small {{requests_per_minute: 5}}\n{RECORD}  limits: *small\n  expires: 2026-01-02\n"
    )
    first, second = read_text(path, text).keys
    assert (first.id, first.limits) == ("1234567890", second.limits)
    assert second.expires == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: [", r"cannot read the key file .*\(line \d"),
        ("keys: [{id: a}]", r"keys.0.sha256 \(a\): Field required"),
        ("keys: [{}]", "keys.0.sha256: Field required"),
        ("keys: [a]", "keys.0: Input should be a valid dictionary"),
        ("key: []", "key: Extra inputs are not permitted"),
        (
            f"keys:\n{RECORD}{record('b').replace('tests', 'task-force').replace('2026', 'x')}",
            r"keys.1.created \(b, task-force\): ",
        ),
        (f"keys:\n{RECORD}{RECORD}", "0a1b2c stands twice in .*keys.yaml"),
        (f"keys:\n{RECORD.replace(': ', ': x')}", "invalid"),
        ("[1]", "invalid"),
        ("[]", "invalid"),
        ("keys: {a: b}", "invalid"),
        (
            f"keys:\n{RECORD}  endpoints: [/v1/chat]\n",
            r"keys.0.endpoints.0 \(0a1b2c, tests\): Input should be '/v1/chat/completions'",
        ),
        (
            f"keys:\n{RECORD}  limits: {{requests_per_minute: 0}}\n",
            r"keys.0.limits.requests_per_minute \(0a1b2c, tests\): .*greater than 0",
        ),
        (
            f"keys:\n{RECORD}  metadata: {{team: [a]}}\n",
            r"keys.0.metadata.team \(0a1b2c, tests\): Input should be a valid string",
        ),
        (f"keys:\n{RECORD}  models: [a]\n  models: [b]\n", r"stands in it twice \(line 7, column 3\)"),
        (
            f"keys:\n{RECORD.replace('0a1b2c', 'anonymous')}",
            r"keys.0.id \(anonymous, tests\): Value error, is reserved",
        ),
        (f"keys:\n{RECORD}---\nkeys: []\n", "a second document"),
        ("keys: &a [*a]", "alias within its own anchor"),
        ("? [a]\n: b", "a key that is no text"),
        ("<<: 5", "something else than a mapping"),
        ("[" * 5000, "nesting|too deeply nested"),
        ("[" * 900 + "]" * 900, "too deeply nested"),
        ("keys: \x01", "cannot read the key file"),
    ],
)
def test_faulty_file_is_explained(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        key_files.read(path)


@pytest.mark.parametrize(
    "text",
    [
        f"keys: [{KEY}",
        f"keys:\n- id: {KEY}\n",
        f"keys:\n{RECORD}  name: {KEY}\n",
        f"{KEY}: 1",
        f"keys: [{{name: {KEY}}}]",
    ],
)
def test_fault_does_not_repeat_what_may_be_a_key_pasted_by_mistake(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        key_files.read(path)
    assert "the-secret_of-tests" not in str(caught.value)


def test_text_that_is_not_utf8_is_explained(path: Path) -> None:
    path.write_bytes(b"keys: \xff\xfe\xff")
    with pytest.raises(ConfigurationError, match="cannot read the key file"):
        key_files.read(path)


def test_merge_keys_give_defaults_that_own_fields_win_over() -> None:
    text = b"a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {x: 4, <<: *a}\n"
    tree = key_yaml.load(text)
    assert isinstance(tree, dict)
    assert tree["c"] == {"x": "1", "y": "1", "z": "3"}
    assert tree["d"] == {"x": "4", "y": "1"}


def test_missing_file_is_explained_with_the_fix(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gemma-gateway keys create --file .*keys\.yaml"):
        key_files.read(path)


@pytest.mark.parametrize("text", ["keys:\n", "keys: []", "keys: # nobody yet\n"])
def test_file_without_keys_lets_nobody_in(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(AuthenticationError):
        KeyStore.load(AuthSettings(keys_file=path)).authenticate(KEY)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\n", b"# nothing yet\n", b"{}", b"---\n"])
def test_file_without_even_the_field_is_refused_since_it_may_be_one_that_is_being_written(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"keys: is missing; to let nobody in, write:  keys: \[\]"):
        KeyStore.load(AuthSettings(keys_file=path))


def test_folder_without_key_files_is_refused_unless_there_is_a_file_beside_it(folder: Path, path: Path) -> None:
    (folder / "README.md").write_text("none yet")
    with pytest.raises(
        ConfigurationError, match=rf"no key file .* in auth\.keys_directory {folder}; make one:  gemma-"
    ):
        key_files.read_all(AuthSettings(keys_directory=folder))
    path.write_text(f"keys:\n{RECORD}")
    found = key_files.read_all(AuthSettings(keys_file=path, keys_directory=folder))
    assert [found.id for found in found] == ["0a1b2c"]


def test_folder_is_read_in_order_without_hidden_and_other_files(folder: Path) -> None:
    for name in ("b.yml", "a.yaml", ".hidden.yaml", "..data.yaml", "c.yaml.bak", "README.md"):
        (folder / name).write_text(f"keys:\n{record(sha256(name.encode()).hexdigest()[:8])}")
    assert [file.name for file in key_files.paths(AuthSettings(keys_directory=folder))] == ["a.yaml", "b.yml"]


def test_keys_of_file_and_folder_are_all_good(folder: Path, path: Path) -> None:
    path.write_text(f"keys:\n{RECORD}")
    (folder / "team.yaml").write_text(f"keys:\n{record('ffff')}")
    store = KeyStore.load(AuthSettings(keys_file=path, keys_directory=folder))
    assert [store.authenticate(KEY.replace("0a1b2c", identity)).id for identity in ("0a1b2c", "ffff")] == [
        "0a1b2c",
        "ffff",
    ]


def test_id_in_two_files_refuses_them_all_and_names_both(folder: Path, path: Path) -> None:
    for file in (path, folder / "team.yaml"):
        file.write_text(f"keys:\n{RECORD}")
    with pytest.raises(ConfigurationError, match=rf"0a1b2c stands in {path} and in {folder}/team.yaml"):
        KeyStore.load(AuthSettings(keys_file=path, keys_directory=folder))


def test_file_that_lies_in_the_folder_is_read_once(folder: Path) -> None:
    (folder / "keys.yaml").write_text(f"keys:\n{RECORD}")
    settings = AuthSettings(keys_file=folder / "keys.yaml", keys_directory=folder)
    assert [found.id for found in key_files.read_all(settings)] == ["0a1b2c"]


def test_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot list auth\.keys_directory: .*No such file"):
        key_files.read_all(AuthSettings(keys_directory=tmp_path / "none"))


@pytest.mark.parametrize("kind", ["keys_file", "keys_directory"])
def test_path_that_cannot_be_one_is_explained(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="null byte"):
        key_files.read_all(AuthSettings.model_validate({kind: "a\0b"}))


def test_mounted_secret_is_read_through_its_links(folder: Path) -> None:
    mount(folder, "..2026_01", f"keys:\n{RECORD}")
    assert [found.id for found in key_files.read_all(AuthSettings(keys_directory=folder))] == ["0a1b2c"]


def replace(path: Path) -> None:
    temporary = path.with_name(".new")
    temporary.write_text(path.read_text())
    os.utime(temporary, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    temporary.replace(path)


def write_in_place(path: Path) -> None:
    seen = path.stat()
    path.write_text(path.read_text().replace("tests", "stets"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


CHANGES: list[Callable[[Path], object]] = [
    replace,
    write_in_place,
    lambda path: path.write_text("keys: []"),
    lambda path: path.chmod(0o400),
    Path.unlink,
    lambda path: path.rename(path.with_name("other.yaml")),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["keys_file", "keys_directory"])
def test_fingerprint_changes_with_the_file(folder: Path, kind: str, change: Callable[[Path], object]) -> None:
    file = folder / "keys.yaml"
    file.write_text(f"keys:\n{RECORD}")
    settings = AuthSettings.model_validate({kind: file if kind == "keys_file" else folder})
    before = key_files.fingerprint(settings)
    assert key_files.fingerprint(settings) == before
    change(file)
    assert key_files.fingerprint(settings) != before


@pytest.mark.parametrize("kind", ["keys_file", "keys_directory"])
def test_fingerprint_sees_a_mounted_secret_change(folder: Path, kind: str) -> None:
    mount(folder, "..2026_01", f"keys:\n{RECORD}")
    settings = AuthSettings.model_validate({kind: folder / "keys.yaml" if kind == "keys_file" else folder})
    before = key_files.fingerprint(settings)
    mount(folder, "..2026_02", f"keys:\n{RECORD}")
    assert key_files.fingerprint(settings) != before


def test_fingerprint_sees_files_come_to_the_folder_and_the_folder_go(folder: Path) -> None:
    settings = AuthSettings(keys_directory=folder)
    empty = key_files.fingerprint(settings)
    (folder / "new.yaml").write_text("")
    one = key_files.fingerprint(settings)
    (folder / "new.yaml").unlink()
    folder.rmdir()
    assert len({empty, one, key_files.fingerprint(settings)}) == 3


def test_fingerprint_of_what_is_not_there_or_is_no_name_is_one_too(tmp_path: Path) -> None:
    missing = AuthSettings(keys_file=tmp_path / "none.yaml", keys_directory=tmp_path / "none")
    strange = AuthSettings(keys_file=Path("a\0b"), keys_directory=Path("a\0b"))
    assert key_files.fingerprint(missing) == key_files.fingerprint(missing)
    assert len(key_files.fingerprint(strange)) == 2
    assert key_files.fingerprint(AuthSettings()) == ()
