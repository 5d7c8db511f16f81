"""A key that is presented: found by its id, compared by its hash, refused with a reason and shown masked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from gateway.access import keys
from gateway.access.callers import EVERYTHING, Caller
from gateway.access.key_files import KeyRecord, Previous
from gateway.access.keys import KeyStore
from gateway.errors import AuthenticationError
from gateway.settings import Limits

KEY = "sk-gemma-0a1b2c-the-secret_of-tests"
OLD_KEY = "sk-gemma-0a1b2c-the-secret_before"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
RECORD = KeyRecord(id="0a1b2c", name="tests", sha256=sha256(KEY.encode()).hexdigest(), created=NOW)


def store(**changes: object) -> KeyStore:
    """One key, at a clock that stands still."""
    return KeyStore.of([RECORD.model_copy(update=changes)], NOW.timestamp)


def before(expires: datetime) -> Previous:
    return Previous(sha256=sha256(OLD_KEY.encode()).hexdigest(), expires=expires)


def refusal(keys: KeyStore, presented: str) -> str:
    with pytest.raises(AuthenticationError) as caught:
        keys.authenticate(presented)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    return caught.value.message


def test_good_key_is_its_caller_who_may_do_everything_unless_restricted() -> None:
    assert store().authenticate(KEY) == Caller("0a1b2c", "tests", EVERYTHING, label="0a1b2c")


def test_caller_may_do_what_the_record_grants() -> None:
    limits = Limits(requests_per_minute=60)
    caller = store(models=("gemma",), limits=limits, priority=-5).authenticate(KEY)
    assert (caller.grant.models, caller.grant.limits, caller.grant.priority) == (("gemma",), limits, -5)
    assert caller.grant.endpoints is None


def test_key_expires_at_its_moment() -> None:
    moment = timedelta(microseconds=1)
    assert store(expires=NOW + moment).authenticate(KEY).id == "0a1b2c"
    assert "This API key has expired: sk-gemma-0a1b2c-***." in refusal(store(expires=NOW), KEY)


def test_both_secrets_are_good_during_a_rotation() -> None:
    rotating = store(previous=before(NOW + timedelta(hours=1)))
    assert rotating.authenticate(KEY) == rotating.authenticate(OLD_KEY)


def test_old_secret_is_refused_as_replaced_once_its_time_is_over() -> None:
    rotated = store(previous=before(NOW))
    assert "has been replaced by a new one" in refusal(rotated, OLD_KEY)
    assert rotated.authenticate(KEY).id == "0a1b2c"


def test_old_secret_is_not_valid_longer_than_its_key() -> None:
    expired = store(expires=NOW, previous=before(NOW + timedelta(hours=1)))
    assert "replaced" in refusal(expired, OLD_KEY)


def test_wrong_secret_is_refused_in_the_words_for_an_unknown_id() -> None:
    with_id, without = refusal(store(), KEY + "x"), refusal(KeyStore.of([]), KEY + "x")
    assert with_id == without


def test_secret_of_one_key_does_not_open_another() -> None:
    other = RECORD.model_copy(update={"id": "ffff", "sha256": "0" * 64})
    both = KeyStore.of([RECORD, other])
    assert "Incorrect API key" in refusal(both, KEY.replace("0a1b2c", "ffff"))


@pytest.mark.parametrize(
    ("presented", "shown"),
    [
        (KEY[:-1], "sk-gemma-0a1b2c-***"),
        (KEY + "x", "sk-gemma-0a1b2c-***"),
        ("sk-gemma-ffff-another-secret", "sk-gemma-ffff-***"),
        ("sk-gemma-", "***"),
        ("sk-gemma-0a1b2c", "***"),
        ("sk-proj-0123456789abcdef", "sk-***"),
        ("hunter2", "***"),
        ("sk-gemma-\xff\xfe-\x00", "sk-gemma-\xff\xfe-***"),
        ("", "***"),
    ],
)
def test_wrong_key_is_refused_and_shown_masked(presented: str, shown: str) -> None:
    message = refusal(store(), presented)
    assert f"Incorrect API key provided: {shown}." in message
    assert not presented or presented not in message


@pytest.mark.parametrize("text", [repr(store()), str(store(previous=before(NOW)))], ids=["current", "previous"])
def test_representation_of_a_store_shows_no_digest(text: str) -> None:
    assert "b'" not in text
    assert "0a1b2c" not in text


def test_only_the_id_of_our_keys_is_public() -> None:
    assert keys.public_id(KEY) == "0a1b2c"
    assert keys.public_id("sk-proj-0a1b2c-secret") == ""
