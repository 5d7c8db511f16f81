"""Keys in a file: made, rotated, revoked and verified, whoever else does so at the same time."""

from __future__ import annotations

import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access import key_edits, key_files
from gateway.access.key_files import KeyRecord
from gateway.access.keys import KeyStore, Standing
from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import AuthSettings, Grant, Limits

HOUR = timedelta(hours=1)
#: The file's times are whole seconds.
TICK = timedelta(seconds=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def store(path: Path) -> KeyStore:
    return KeyStore.load(AuthSettings(keys_file=path))


def only(path: Path) -> KeyRecord:
    (record,) = key_files.read(path).keys
    return record


def secret_of(key: str) -> str:
    return key.split("-", 3)[3]


def test_created_key_is_accepted_and_names_its_caller(path: Path) -> None:
    key = key_edits.create(path, "Ada")
    caller = store(path).authenticate(key)
    assert (caller.id, caller.name, caller.label) == (only(path).id, "Ada", only(path).id)


def test_created_key_is_granted_what_was_asked_for(path: Path) -> None:
    grant = Grant(models=("gemma",), limits=Limits(max_in_flight=2), priority=3)
    key = key_edits.create(path, "Ada", grant, metadata={"team": "search"})
    assert store(path).authenticate(key).grant == grant
    assert only(path).metadata == {"team": "search"}


def test_file_holds_no_secret_and_is_its_owners_alone(path: Path) -> None:
    key = key_edits.create(path, "Ada")
    assert secret_of(key) not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.yaml"]


def test_edited_file_keeps_the_permissions_it_was_given(path: Path) -> None:
    key_edits.create(path, "Ada")
    path.chmod(0o640)
    key_edits.create(path, "Bob")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_empty_file_takes_a_key_and_keeps_its_permissions(path: Path) -> None:
    path.touch(0o640)
    path.chmod(0o640)
    key = key_edits.create(path, "Ada")
    assert store(path).authenticate(key).name == "Ada"
    assert path.stat().st_mode & 0o777 == 0o640


def test_file_behind_a_link_is_edited_and_the_link_stays(path: Path, tmp_path: Path) -> None:
    key_edits.create(path, "Ada")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.yaml"
    link.symlink_to(path)
    key_edits.create(link, "Bob")
    assert link.is_symlink()
    assert [record.name for record in key_files.read(path).keys] == ["Ada", "Bob"]


def test_keys_have_256_bits_and_differ(path: Path) -> None:
    made = {key_edits.create(path, "Ada") for _ in range(3)}
    assert len({secret_of(key) for key in made}) == 3
    assert all(len(secret_of(key)) >= 43 for key in made)


def test_public_id_is_drawn_again_until_it_is_new() -> None:
    drawn = iter(["a", "b", "a", "c"])
    assert key_edits.fresh_id({"a", "b"}, lambda: next(drawn)) == "c"


def test_edits_at_the_same_time_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: key_edits.create(path, f"caller {number}"), range(24)))
    keys = store(path)
    assert [keys.authenticate(key).name for key in made] == [f"caller {number}" for number in range(24)]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[2J"])
def test_name_that_cannot_be_shown_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--name alice"):
        key_edits.create(path, name)
    assert not path.exists()


@pytest.mark.parametrize("metadata", [{"team": "a\nb"}, {"\udcff": "a"}])
def test_metadata_that_cannot_be_shown_are_refused(path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="--metadata team=search"):
        key_edits.create(path, "Ada", metadata=metadata)
    assert not path.exists()


def test_key_with_a_lifetime_works_until_then(path: Path) -> None:
    key = key_edits.create(path, "Ada", lifetime=timedelta(days=90))
    record = only(path)
    assert record.expires == record.created + timedelta(days=90)
    assert store(path).authenticate(key).name == "Ada"


def test_revoked_key_is_refused_and_others_stay(path: Path) -> None:
    first, second = key_edits.create(path, "first"), key_edits.create(path, "second")
    assert key_edits.revoke(path, first.split("-")[2]).name == "first"
    keys = store(path)
    assert keys.authenticate(second).name == "second"
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        keys.authenticate(first)


def test_revoking_takes_a_whole_key_too_and_names_what_is_not_there(path: Path) -> None:
    key = key_edits.create(path, "Ada")
    key_edits.revoke(path, key)
    for given in (key, secret_of(key)):
        with pytest.raises(ConfigurationError, match=r"no key with the id .*keys list --file") as caught:
            key_edits.revoke(path, given)
        assert secret_of(key) not in str(caught.value)


def test_both_secrets_are_good_while_a_rotation_overlaps(path: Path) -> None:
    old = key_edits.create(path, "Ada", Grant(models=("gemma",)), metadata={"team": "search"})
    before = only(path)
    rotated = key_edits.rotate(path, before.id)
    after = only(path)
    keys = store(path)
    assert keys.authenticate(old) == keys.authenticate(rotated.key)
    assert (after.id, after.name, after.created, after.grant, after.metadata) == (
        before.id,
        before.name,
        before.created,
        before.grant,
        before.metadata,
    )
    assert rotated.record == after
    assert rotated.dropped is None
    assert after.previous is not None
    assert abs(after.previous.expires - datetime.now(UTC) - key_edits.OVERLAP) < TICK


def test_rotation_without_overlap_ends_the_old_secret_at_once(path: Path) -> None:
    old = key_edits.create(path, "Ada")
    rotated = key_edits.rotate(path, old, timedelta(0))
    assert only(path).previous is None
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        store(path).authenticate(old)
    assert store(path).authenticate(rotated.key).name == "Ada"


def test_second_rotation_ends_the_oldest_secret_and_tells_so(path: Path) -> None:
    oldest = key_edits.create(path, "Ada")
    older = key_edits.rotate(path, oldest, HOUR)
    rotated = key_edits.rotate(path, oldest, HOUR)
    keys = store(path)
    assert rotated.dropped == older.record.previous
    assert keys.authenticate(older.key) == keys.authenticate(rotated.key)
    with pytest.raises(AuthenticationError):
        keys.authenticate(oldest)


def test_old_secret_is_promised_no_longer_life_than_its_key_had(path: Path) -> None:
    key = key_edits.create(path, "Ada", lifetime=HOUR)
    end = only(path).expires
    record = key_edits.rotate(path, key, timedelta(days=1), lifetime=timedelta(days=90)).record
    assert record.previous is not None
    assert record.previous.expires == end
    assert record.expires is not None
    assert abs(record.expires - datetime.now(UTC) - timedelta(days=90)) < TICK


def test_expired_key_is_rotated_only_with_a_new_lifetime(path: Path) -> None:
    old = key_edits.create(path, "Ada", lifetime=-HOUR)
    with pytest.raises(ConfigurationError, match=r"has expired(.|\n)*--expires-in 90d"):
        key_edits.rotate(path, old)
    rotated = key_edits.rotate(path, old, lifetime=HOUR)
    assert rotated.record.previous is None
    assert store(path).authenticate(rotated.key).name == "Ada"


def test_verifying_tells_what_the_secret_is_to_its_key(path: Path) -> None:
    old = key_edits.create(path, "Ada", lifetime=timedelta(days=9))
    rotated = key_edits.rotate(path, old, HOUR)
    now = datetime.now(UTC)

    def standing(key: str, moment: datetime) -> Standing:
        verified = key_edits.verify(key, path, moment)
        assert verified.record == only(path)
        assert verified.valid == (verified.standing in (Standing.CURRENT, Standing.PREVIOUS))
        return verified.standing

    assert standing(rotated.key, now) is Standing.CURRENT
    assert standing(old, now) is Standing.PREVIOUS
    assert standing(old, now + 2 * HOUR) is Standing.REPLACED
    assert standing(rotated.key, now + timedelta(days=10)) is Standing.EXPIRED
    assert standing(old + "x", now) is Standing.WRONG


@pytest.mark.parametrize("key", ["", "hunter2", "sk-gemma-0000000000-secret"])
def test_verifying_an_unknown_key_finds_no_record(path: Path, key: str) -> None:
    key_edits.create(path, "Ada")
    verified = key_edits.verify(key, path)
    assert (verified.record, verified.valid) == (None, False)


def test_invalid_file_is_left_as_it_is(path: Path) -> None:
    path.write_text("keys: [{id: a}]")
    for edit in (lambda: key_edits.create(path, "Ada"), lambda: key_edits.revoke(path, "a")):
        with pytest.raises(ConfigurationError, match="is invalid"):
            edit()
    assert path.read_text() == "keys: [{id: a}]"
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.yaml"]


def test_folder_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot use the folder of"):
        key_edits.create(tmp_path / "none" / "keys.yaml", "Ada")


def test_link_that_leads_nowhere_is_explained(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(ConfigurationError, match=r"cannot use the folder of .*keys\.yaml"):
        key_edits.create(path, "Ada")
    assert path.is_symlink()


def test_failed_write_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    key_edits.create(path, "Ada")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A full disk, in effect: CPython ignores SIGXFSZ, so that the write fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match="cannot write the key file"):
            key_edits.create(path, "Bob")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.yaml"]
