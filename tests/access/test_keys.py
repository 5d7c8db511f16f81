"""Keys: made once, stored hashed, checked, shown masked."""

from __future__ import annotations

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.access import keys
from gateway.access.keys import ANONYMOUS, Access, Caller, KeyStore
from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import AuthSettings

KEY = "sk-gemma-0a1b2c-the-secret_of-tests"
RECORD = f"""\
- id: 0a1b2c
  name: tests
  sha256: {hashlib.sha256(KEY.encode()).hexdigest()}
  created: 2026-01-01T00:00:00Z
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def access(path: Path) -> Access:
    """Access with one key, which never expires."""
    path.write_text(f"keys:\n{RECORD}")
    return Access.from_settings(AuthSettings(keys_file=path), "192.0.2.1")


def test_created_key_is_accepted_and_names_its_caller(path: Path) -> None:
    key = keys.create(path, "Ada")
    caller = KeyStore.load(path).authenticate(key)
    assert caller == Caller(keys.read(path).keys[0].id, "Ada")


def test_file_holds_no_secret_and_is_its_owners_alone(path: Path) -> None:
    key = keys.create(path, "Ada")
    assert key.rpartition("-")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.yaml"]


def test_keys_have_256_bits_and_differ(path: Path) -> None:
    made = {keys.create(path, "Ada") for _ in range(3)}
    assert len(made) == 3
    assert all(len(key.split("-", 3)[3]) >= 43 for key in made)


def test_edits_at_the_same_time_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: keys.create(path, f"caller {number}"), range(24)))
    store = KeyStore.load(path)
    assert [store.authenticate(key).name for key in made] == [f"caller {number}" for number in range(24)]


def test_revoked_key_is_refused_and_others_stay(path: Path) -> None:
    first, second = keys.create(path, "first"), keys.create(path, "second")
    record = keys.revoke(path, first.split("-")[2])
    store = KeyStore.load(path)
    assert record.name == "first"
    assert store.authenticate(second).name == "second"
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        store.authenticate(first)


def test_revoking_takes_a_whole_key_too_and_names_what_is_not_there(path: Path) -> None:
    key = keys.create(path, "Ada")
    keys.revoke(path, key)
    with pytest.raises(ConfigurationError, match=r"no key with the id .*keys list --file") as caught:
        keys.revoke(path, key)
    assert key.rpartition("-")[2] not in str(caught.value)


def test_expired_key_is_refused_as_such(path: Path) -> None:
    key = keys.create(path, "late", timedelta(seconds=-1))
    with pytest.raises(AuthenticationError, match="has expired"):
        KeyStore.load(path).authenticate(key)


def test_key_with_a_lifetime_works_until_then(path: Path) -> None:
    key = keys.create(path, "Ada", timedelta(days=90))
    record = keys.read(path).keys[0]
    assert record.expires == record.created + timedelta(days=90)
    assert KeyStore.load(path).authenticate(key).name == "Ada"


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (f"Bearer {KEY}", None),
        (f"bearer   {KEY} ", None),
        (None, KEY),
        ("Basic dXNlcjpwYXNz", KEY),
    ],
)
def test_key_is_taken_from_either_header(access: Access, authorization: str | None, api_key: str | None) -> None:
    caller = access.authenticate(
        authorization.encode() if authorization else None, api_key.encode() if api_key else None
    )
    assert caller == Caller("0a1b2c", "tests")


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwYXNz"])
def test_missing_key_is_refused_with_the_way_to_send_one(access: Access, authorization: bytes | None) -> None:
    with pytest.raises(AuthenticationError, match=r"No API key was provided.*Authorization: Bearer") as caught:
        access.authenticate(authorization, None)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("presented", "shown"),
    [
        (KEY[:-1], "sk-gemma-0a1b2c-***"),
        (KEY + "x", "sk-gemma-0a1b2c-***"),
        ("sk-gemma-ffff-another-secret", "sk-gemma-ffff-***"),
        ("sk-gemma-", "***"),
        ("sk-proj-0123456789abcdef", "sk-***"),
        ("hunter2", "***"),
        ("sk-gemma-\xff\xfe-\x00", "sk-gemma-\xff\xfe-***"),
    ],
)
def test_wrong_key_is_refused_and_shown_masked(access: Access, presented: str, shown: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        access.authenticate(b"Bearer " + presented.encode("latin-1"), None)
    assert f"Incorrect API key provided: {shown}." in caught.value.message
    assert presented not in caught.value.message


def test_open_gateway_takes_any_key_and_none() -> None:
    access = Access.from_settings(AuthSettings(), "127.0.0.1")
    assert access.open
    assert access.authenticate(b"Bearer whatever", None) == ANONYMOUS
    assert access.authenticate(None, None) == ANONYMOUS


def test_open_gateway_beyond_loopback_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"keys create --file keys.yaml(.|\n)*--keys-file(.|\n)*127\.0\.0\.1"):
        Access.from_settings(AuthSettings(), "192.0.2.1")


def test_times_by_hand_may_be_dates_or_lack_a_zone(path: Path) -> None:
    path.write_text(f"keys:\n{RECORD}  expires: 2026-01-02\n")
    with pytest.raises(AuthenticationError, match="expired"):
        KeyStore.load(path).authenticate(KEY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: [", "cannot read the key file"),
        ("keys: [{id: a}]", "keys.0.sha256: Field required"),
        ("key: []", "key: Extra inputs are not permitted"),
        (f"keys:\n{RECORD}{RECORD}", "holds the id 0a1b2c twice"),
        (RECORD.replace("sha256: ", "sha256: x"), "invalid"),
        ("[1]", "invalid"),
    ],
)
def test_faulty_file_is_explained(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        KeyStore.load(path)


def test_missing_file_is_explained_with_the_fix(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gemma-gateway keys create --file .*keys\.yaml"):
        KeyStore.load(path)


def test_empty_file_lets_nobody_in(path: Path) -> None:
    path.write_text("")
    with pytest.raises(AuthenticationError):
        KeyStore.load(path).authenticate(KEY)


def test_representation_of_a_store_shows_no_digest(access: Access) -> None:
    assert "b'" not in repr(access._store)
