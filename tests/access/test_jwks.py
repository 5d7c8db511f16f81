"""The keys of a provider: found, kept, renewed, and which of them count."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import RSAAlgorithm

from gateway.access import jwks, signing_keys
from gateway.access.jwks import KeySet
from gateway.access.signing_keys import SigningKeys
from gateway.errors import ProviderUnavailableError
from tests.access.logged import within_request
from tests.access.provider import Provider, certify, ec_key, jwk, rsa_key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider([jwk(rsa_key("one"), "one")]) as running:
        yield running


@asynccontextmanager
async def key_set(provider: Provider, clock: Clock, **settings: Any) -> AsyncIterator[KeySet]:
    keys = KeySet("company", provider.settings(**settings), clock=clock)
    try:
        yield keys
    finally:
        await keys.aclose()


@asynccontextmanager
async def running(keys: KeySet) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(what: Any) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.005)


def read(*keys: dict[str, Any], algorithms: tuple[str, ...] = ("RS256",)) -> SigningKeys:
    return signing_keys.read(json.dumps({"keys": keys}).encode(), algorithms)


async def test_first_token_has_the_keys_found_by_discovery(provider: Provider, clock: Clock) -> None:
    async with key_set(provider, clock) as keys:
        assert not keys.healthy
        assert await keys.find("one", "RS256") is not None
        assert (keys.healthy, keys.failures) == (True, 0)
        assert keys.fetched_at is not None
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_configured_address_of_the_keys_spares_discovery(provider: Provider, clock: Clock) -> None:
    async with key_set(provider, clock, jwks_url=f"{provider.issuer}/keys") as keys:
        assert await keys.find("one", "RS256") is not None
    assert provider.asked == ["/keys"]


async def test_issuer_with_a_final_slash_is_discovered_below_it(provider: Provider, clock: Clock) -> None:
    issuer = f"{provider.issuer}/"
    discovery = {"issuer": issuer, "jwks_uri": f"{issuer}keys"}
    provider.answers["/.well-known/openid-configuration"] = json.dumps(discovery).encode()
    async with key_set(provider, clock, issuer=issuer) as keys:
        assert await keys.find("one", "RS256") is not None


async def test_unknown_kid_has_the_keys_read_at_once_but_not_more_often_than_every_ten_seconds(
    provider: Provider, clock: Clock
) -> None:
    async with key_set(provider, clock, jwks_url=f"{provider.issuer}/keys") as keys:
        await keys.find("one", "RS256")
        provider.keys = [jwk(rsa_key("two"), "two")]
        clock.now += 9.9
        assert await keys.find("two", "RS256") is None
        clock.now += 0.1
        assert await keys.find("two", "RS256") is not None
        assert await keys.find("one", "RS256") is None
    assert len(provider.asked) == 2


async def test_many_who_miss_a_key_at_once_wait_for_one_reading(provider: Provider, clock: Clock) -> None:
    provider.delay = 0.05
    async with key_set(provider, clock, jwks_url=f"{provider.issuer}/keys") as keys:
        found = await asyncio.gather(*(keys.find("one", "RS256") for _ in range(50)))
    assert all(key is not None for key in found)
    assert len(provider.asked) == 1


async def test_client_that_leaves_does_not_end_the_reading_others_wait_for(provider: Provider, clock: Clock) -> None:
    provider.delay = 0.05
    async with key_set(provider, clock) as keys:
        first = asyncio.create_task(keys.find("one", "RS256"))
        second = asyncio.create_task(keys.find("one", "RS256"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second is not None
        assert first.cancelled()


async def test_keys_are_read_again_in_the_background(provider: Provider, clock: Clock) -> None:
    async with key_set(provider, clock, refresh_seconds=0.02) as keys, running(keys):
        await until(lambda: keys.healthy)
        assert keys.keys.find("two", "RS256") is None
        provider.keys = [jwk(rsa_key("two"), "two")]
        await until(lambda: keys.keys.find("two", "RS256"))
        assert keys.keys.find("one", "RS256") is None


async def test_keys_stay_the_same_object_while_the_provider_publishes_the_same(
    provider: Provider, clock: Clock
) -> None:
    provider.keys = [jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two")]
    async with key_set(provider, clock, refresh_seconds=0.01) as keys, running(keys):
        await until(lambda: keys.healthy)
        before, asked = keys.keys, len(provider.asked)
        provider.keys = [{**key, "x5t": "new"} for key in reversed(provider.keys)]
        await until(lambda: len(provider.asked) > asked + 4)
        assert keys.keys is before


async def test_provider_that_is_down_at_the_start_is_unavailable_until_it_is_up(
    provider: Provider, clock: Clock
) -> None:
    provider.down = True
    async with key_set(provider, clock) as keys:
        with pytest.raises(ProviderUnavailableError) as caught:
            await keys.find("one", "RS256")
        assert (caught.value.status, caught.value.retry_after) == (503, 10)
        assert (keys.healthy, keys.failures, keys.fetched_at) == (False, 1, None)
        provider.down = False
        clock.now += 10
        assert await keys.find("one", "RS256") is not None
        assert keys.healthy


async def test_provider_that_goes_down_leaves_its_keys_and_is_told_of_once(
    provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    async with key_set(provider, clock, refresh_seconds=0.01) as keys, running(keys):
        await until(lambda: keys.healthy)
        provider.down = True
        await until(lambda: keys.failures >= 3)
        assert await keys.find("one", "RS256") is not None
        with pytest.raises(ProviderUnavailableError):
            await keys.find("two", "RS256")
        assert keys.fault is not None and "status 5" in keys.fault
        provider.down = False
        await until(lambda: keys.healthy)
        assert keys.fault is None
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "the token provider company has 1 keys for RS256",
        "cannot read the keys of the token provider company",
        "the keys of the token provider company can be read again",
    ]


async def test_log_lines_of_a_reading_are_not_those_of_the_request_that_caused_it(
    provider: Provider, clock: Clock
) -> None:
    provider.down = True
    async with key_set(provider, clock) as keys:
        assert keys.fault == "not read yet"
        with within_request("gateway.access.jwks") as ids, pytest.raises(ProviderUnavailableError):
            await keys.find("one", "RS256")
    assert ids == [None]


async def test_provider_that_cannot_be_connected_to_is_unavailable(clock: Clock) -> None:
    with Provider() as gone:
        pass
    keys = KeySet("company", gone.settings(), clock=clock)
    with pytest.raises(ProviderUnavailableError):
        await keys.find("one", "RS256")
    await keys.aclose()


@pytest.mark.parametrize(
    ("path", "document", "reason"),
    [
        (
            "/.well-known/openid-configuration",
            b'{"issuer": "https://other", "jwks_uri": "https://x/"}',
            "about the issu",
        ),
        ("/.well-known/openid-configuration", b'{"issuer": "ISSUER", "jwks_uri": "http://192.0.2.1/"}', "is not https"),
        ("/.well-known/openid-configuration", b'{"issuer": "ISSUER", "jwks_uri": "file:///etc/x"}', "is not https"),
        ("/.well-known/openid-configuration", b'{"issuer": "ISSUER"}', "no discovery document"),
        ("/.well-known/openid-configuration", b"<html>", "no discovery document"),
        ("/keys", b"<html>", "no set of keys"),
        ("/keys", b"[]", "no set of keys"),
        ("/keys", b"[" * 100_000, "no set of keys"),
        ("/keys", b'{"keys": []}' + b" " * 1024 * 1024, "more than 1048576 bytes"),
        ("/keys", b"", "status 404"),
    ],
)
async def test_what_is_not_to_be_believed_is_a_failure_that_says_why(
    provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture, path: str, document: bytes, reason: str
) -> None:
    provider.answers[path] = document.replace(b"ISSUER", provider.issuer.encode())
    async with key_set(provider, clock) as keys:
        with pytest.raises(ProviderUnavailableError):
            await keys.find("one", "RS256")
        assert keys.failures == 1
    assert reason in caplog.text


async def test_redirects_are_not_followed(provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    provider.redirects["/elsewhere"] = "/keys"
    async with key_set(provider, clock, jwks_url=f"{provider.issuer}/elsewhere") as keys:
        with pytest.raises(ProviderUnavailableError):
            await keys.find("one", "RS256")
    assert "status 302" in caplog.text
    assert provider.asked == ["/elsewhere"]


async def test_slow_provider_is_given_up_in_time(
    provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    provider.delay = 0.3
    async with key_set(provider, clock, timeout_seconds=0.05) as keys:
        with pytest.raises(ProviderUnavailableError):
            await keys.find("one", "RS256")
    assert "no answer within 0.05 s" in caplog.text


@pytest.fixture
def fresh_trust() -> Iterator[None]:
    """Has the trusted authorities found anew, before and after."""
    jwks._trust.cache_clear()
    yield
    jwks._trust.cache_clear()


@pytest.mark.usefixtures("fresh_trust")
async def test_certificate_must_be_signed_by_whom_the_system_trusts(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = certify(tmp_path / "provider.pem")
    with Provider([jwk(rsa_key("one"), "one")], certificate=certificate) as provider:
        async with key_set(provider, clock) as keys:
            with pytest.raises(ProviderUnavailableError):
                await keys.find("one", "RS256")
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        jwks._trust.cache_clear()
        async with key_set(provider, clock) as keys:
            assert await keys.find("one", "RS256") is not None


async def test_proxies_of_the_environment_are_not_used(
    provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with key_set(provider, clock) as keys:
        assert await keys.find("one", "RS256") is not None


async def test_set_without_usable_keys_is_taken_over_since_that_withdraws_them(
    provider: Provider, clock: Clock
) -> None:
    async with key_set(provider, clock) as keys:
        await keys.find("one", "RS256")
        provider.keys = []
        clock.now += 10
        assert await keys.find("two", "RS256") is None
        assert await keys.find("one", "RS256") is None
        assert keys.healthy


def test_keys_for_encryption_of_unknown_kinds_and_broken_ones_are_skipped() -> None:
    good = rsa_key("one")
    keys = read(
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "new", "kid": "unheard-of"},
        {"kid": "without-kind"},
        {"kty": 7},
        jwk(good, "encryption", use="enc"),
        jwk(good, "wrapping", key_ops=["wrapKey"]),
        jwk(good, "broken", n="!"),
        jwk(good, "hollow", n=None),
        jwk(good, "one", use="sig", key_ops=["verify"]),
    )
    assert list(keys.by_kid) == [("one", "RS256")]


def test_rsa_key_of_less_than_2048_bits_is_skipped() -> None:
    assert read(jwk(rsa_key("weak", 1024), "weak")).find("weak", "RS256") is None


def test_key_verifies_only_what_its_kind_curve_and_own_algorithm_allow() -> None:
    keys = read(
        jwk(rsa_key("one"), "any"),
        jwk(rsa_key("one"), "bound", alg="PS256"),
        jwk(ec_key("one"), "short"),
        jwk(ec_key("two", "P-384"), "long"),
        jwk(ed25519.Ed25519PrivateKey.generate(), "edwards"),
        algorithms=("RS256", "PS256", "ES256", "ES384", "EdDSA"),
    )
    assert set(keys.by_kid) == {
        ("any", "RS256"),
        ("any", "PS256"),
        ("bound", "PS256"),
        ("short", "ES256"),
        ("long", "ES384"),
        ("edwards", "EdDSA"),
    }


def test_algorithm_that_is_not_pinned_has_no_keys() -> None:
    keys = read(jwk(rsa_key("one"), "one"), jwk(ec_key("one"), "ec"), algorithms=("ES256",))
    assert list(keys.by_kid) == [("ec", "ES256")]


def test_token_without_kid_needs_a_key_that_is_alone() -> None:
    one, two = jwk(rsa_key("one")), jwk(rsa_key("two"), "two")
    assert read(one).find(None, "RS256") is not None
    assert read(one, jwk(ec_key("one"))).find(None, "RS256") is not None
    assert read(one, two).find(None, "RS256") is None


def test_private_parts_that_are_published_by_mistake_are_not_taken_in() -> None:
    private = json.loads(RSAAlgorithm.to_jwk(rsa_key("one"))) | {"kid": "one", "key_ops": ["verify"]}
    assert "d" in private
    key = read(private).find("one", "RS256")
    assert key is not None
    assert not hasattr(key.key, "private_numbers")
