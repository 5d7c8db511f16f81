"""Who may call: keys and tokens side by side, the open gateway, and wrong ones slowed down."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network

import pytest

from gateway.access.authentication import Access
from gateway.access.brake import Brake
from gateway.access.callers import ANONYMOUS
from gateway.access.jwt import Tokens
from gateway.access.key_files import KeyRecord
from gateway.access.keys import KeyStore
from gateway.errors import (
    AuthenticationError,
    ConfigurationError,
    GatewayError,
    PermissionDeniedError,
    TooManyFailuresError,
)
from gateway.settings import AuthSettings, Grant
from tests.access.provider import Provider, jwk, rsa_key

KEY = "sk-gemma-0a1b2c-the-secret_of-tests"


def store(*keys: str) -> KeyStore:
    return KeyStore.of(
        KeyRecord(
            id=key.split("-")[2],
            name=f"owner of {key.split('-')[2]}",
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for key in keys
    )


def peer() -> tuple[str | None, Sequence[bytes]]:
    return "203.0.113.7", []


def _through_proxy(forwarded: bytes) -> tuple[str | None, Sequence[bytes]]:
    return "10.0.0.1", [forwarded]


@pytest.fixture
def keyed() -> Access:
    return Access.from_settings(AuthSettings(max_failures_per_minute=0), "192.0.2.1", store(KEY), None)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider([jwk(rsa_key("one"), "one")]) as running:
        yield running


@pytest.fixture
async def tokens(provider: Provider) -> AsyncIterator[Tokens]:
    made = Tokens({"company": provider.settings(grant_claim="groups", grants={"staff": Grant()})})
    yield made
    await made.aclose()


async def error(access: Access, presented: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await access.authenticate(b"Bearer " + presented.encode("latin-1"), None, peer)
    assert presented not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (f"Bearer {KEY}", None),
        (f"bearer   {KEY} ", None),
        (f"Bearer {KEY}", "sk-another"),
        (None, KEY),
        (None, f" {KEY}"),
        ("Basic dXNlcjpwYXNz", KEY),
    ],
)
async def test_key_may_stand_in_either_header(keyed: Access, authorization: str | None, api_key: str | None) -> None:
    caller = await keyed.authenticate(
        authorization.encode() if authorization else None, api_key.encode() if api_key else None, peer
    )
    assert (caller.id, caller.name) == ("0a1b2c", "owner of 0a1b2c")


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwYXNz"])
async def test_request_without_a_key_is_told_how_to_send_one(keyed: Access, authorization: bytes | None) -> None:
    with pytest.raises(
        AuthenticationError, match=r"No API key was provided.*Authorization: Bearer.*x-api-key"
    ) as caught:
        await keyed.authenticate(authorization, None, peer)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("presented", "shown"),
    [
        (KEY[:-1], "sk-gemma-0a1b2c-***"),
        (KEY + "x", "sk-gemma-0a1b2c-***"),
        ("sk-gemma-ffff-a.nother.secret", "sk-gemma-ffff-***"),
        ("sk-proj-0123456789abcdef", "sk-***"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln", "eyJ***"),
        ("hunter2", "***"),
        ("sk-gemma-\xff\xfe-\x00", "sk-gemma-\xff\xfe-***"),
    ],
)
async def test_wrong_key_is_refused_and_shown_masked(keyed: Access, presented: str, shown: str) -> None:
    refused = await error(keyed, presented)
    assert isinstance(refused, AuthenticationError)
    assert f"Incorrect API key provided: {shown}." in refused.message


async def test_keys_and_tokens_go_together(provider: Provider, tokens: Tokens) -> None:
    access = Access.from_settings(AuthSettings(), "192.0.2.1", store(KEY), tokens)
    token = provider.token(rsa_key("one"), groups="staff").encode()
    assert not access.open
    assert (await access.authenticate(b"Bearer " + KEY.encode(), None, peer)).id == "0a1b2c"
    assert (await access.authenticate(b"Bearer " + token, None, peer)).id == "company:ada"
    assert (await access.authenticate(None, token, peer)).id == "company:ada"


async def test_tokens_need_no_keys(provider: Provider, tokens: Tokens) -> None:
    access = Access.from_settings(AuthSettings(), "192.0.2.1", None, tokens)
    token = provider.token(rsa_key("one"), groups="staff")
    assert not access.open
    assert (await access.authenticate(b"Bearer " + token.encode(), None, peer)).id == "company:ada"
    for wrong in (KEY, "hunter2", "sk-gemma-a.b.c", "a.b.c.d.e"):
        assert (await error(access, wrong)).code == "invalid_api_key"


async def test_what_looks_like_a_token_is_checked_as_one(tokens: Tokens) -> None:
    access = Access.from_settings(AuthSettings(), "192.0.2.1", store(KEY), tokens)
    assert (await error(access, "a.b.c")).code == "invalid_token"


async def test_good_token_without_a_grant_is_no_failure(provider: Provider, tokens: Tokens) -> None:
    access = Access(None, tokens, Brake(1, delay=0))
    token = provider.token(rsa_key("one"), groups="guests")
    for _ in range(3):
        assert isinstance(await error(access, token), PermissionDeniedError)


async def test_replaced_keys_count_from_the_next_request_on(keyed: Access) -> None:
    new = "sk-gemma-3d4e5f-another-secret"
    keyed.replace_keys(store(new))
    assert (await keyed.authenticate(None, new.encode(), peer)).id == "3d4e5f"
    assert (await error(keyed, KEY)).status == 401


async def test_open_gateway_takes_any_key_and_none() -> None:
    access = Access.from_settings(AuthSettings(), "127.0.0.1", None, None)
    assert access.open
    assert await access.authenticate(b"Bearer whatever", None, peer) is ANONYMOUS
    assert await access.authenticate(None, None, peer) is ANONYMOUS


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::"])  # noqa: S104 - only named
def test_open_gateway_that_others_can_reach_is_refused_with_the_fixes(host: str) -> None:
    fixes = r"keys create --file keys\.yaml(.|\n)*--keys-file(.|\n)*issuer(.|\n)*--host 127\.0\.0\.1"
    with pytest.raises(ConfigurationError, match=fixes):
        Access.from_settings(AuthSettings(), host, None, None)


async def test_too_many_wrong_keys_are_slowed_and_the_good_one_is_not() -> None:
    access = Access(store(KEY), None, Brake(2, delay=0))
    statuses = [(await error(access, "hunter2")).status for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert (await access.authenticate(None, KEY.encode(), peer)).id == "0a1b2c"


async def test_missing_keys_are_not_counted_as_wrong(keyed: Access) -> None:
    access = Access(store(KEY), None, Brake(1, delay=0))
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            await access.authenticate(None, None, peer)
    assert (await error(access, "hunter2")).status == 401


async def test_failures_are_counted_by_whom_a_trusted_proxy_speaks_for() -> None:
    access = Access(store(KEY), None, Brake(1, delay=0), [ip_network("10.0.0.0/8")])
    statuses = []
    for forwarded in (b"203.0.113.7", b"198.51.100.1", b"203.0.113.7"):
        with pytest.raises(GatewayError) as caught:
            await access.authenticate(None, b"hunter2", partial(_through_proxy, forwarded))
        statuses.append(caught.value.status)
    assert statuses == [401, 401, 429]


async def test_address_is_asked_for_only_when_a_key_is_wrong(keyed: Access) -> None:
    def never() -> tuple[str | None, Sequence[bytes]]:
        pytest.fail("asked for the address")

    assert (await keyed.authenticate(None, KEY.encode(), never)).id == "0a1b2c"


async def test_limits_of_the_settings_are_the_brakes() -> None:
    access = Access.from_settings(AuthSettings(max_failures_per_minute=1), "127.0.0.1", store(KEY), None)
    assert (await error(access, "hunter2")).status == 401
    begun = time.monotonic()
    assert isinstance(await error(access, "hunter2"), TooManyFailuresError)
    assert 0.9 <= time.monotonic() - begun < 3


async def test_nothing_works_in_the_background_without_tokens(keyed: Access) -> None:
    await keyed.run()
    await keyed.aclose()
    assert (await keyed.authenticate(None, KEY.encode(), peer)).id == "0a1b2c"
