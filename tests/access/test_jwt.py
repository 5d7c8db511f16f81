"""Tokens of a real provider: which are good, whom they name, and for how long."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.access.callers import Caller
from gateway.access.jwks import KeySet
from gateway.access.jwt import Tokens
from gateway.errors import AuthenticationError, ConfigurationError, PermissionDeniedError, ProviderUnavailableError
from gateway.settings import AuthSettings, Grant, JwtSettings
from tests.access.provider import Provider, ec_key, jwk, rsa_key

ONE, TWO, EC = rsa_key("one"), rsa_key("two"), ec_key("one")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider([jwk(ONE, "one"), jwk(EC, "ec")]) as running:
        yield running


@asynccontextmanager
async def accepting(provider: Provider, **settings: Any) -> AsyncIterator[Tokens]:
    tokens = Tokens({"company": provider.settings(**settings)})
    try:
        yield tokens
    finally:
        await tokens.aclose()


async def refusal(tokens: Tokens, token: str) -> str:
    """Why a token is refused; the message says nothing that is in the token."""
    with pytest.raises(AuthenticationError) as caught:
        await tokens.authenticate(token)
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")
    assert "ada" not in caught.value.message
    assert token[:40] not in caught.value.message
    return caught.value.message


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


async def test_valid_token_names_its_caller(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        assert await tokens.authenticate(provider.token(ONE)) == Caller("company:ada", "ada", label="company")


async def test_elliptic_key_is_taken_where_its_algorithm_is_pinned(provider: Provider) -> None:
    async with accepting(provider, algorithms=("RS256", "ES256")) as tokens:
        assert (await tokens.authenticate(provider.token(EC, "ec", "ES256"))).name == "ada"


async def test_token_without_kid_is_taken_where_one_key_fits(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        assert (await tokens.authenticate(provider.token(ONE, None))).name == "ada"


@pytest.mark.parametrize("audience", ["gemma", ["other", "gemma"]])
async def test_one_of_the_audiences_suffices(provider: Provider, audience: object) -> None:
    async with accepting(provider, audience=("gemma", "gemma-next")) as tokens:
        assert (await tokens.authenticate(provider.token(ONE, aud=audience))).name == "ada"


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": NOW - 60}, "has expired"),
        ({"nbf": NOW + 3600}, "not valid yet"),
        ({"iat": NOW + 3600}, "not valid yet"),
        ({"aud": "other"}, "none of its audiences is gemma"),
        ({"aud": ["other", "gemma2"]}, "none of its audiences is gemma"),
        ({"aud": None}, "lacks a claim that it needs"),
        ({"exp": None}, "lacks a claim that it needs"),
        ({"iss": None}, "malformed"),
        ({"iss": "https://other.example"}, "issuer is not known here: 'https://other.example'"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"sub": None}, "no claim 'sub'"),
        ({"sub": ""}, "no claim 'sub'"),
        ({"sub": "ada" * 100}, "longer than 256"),
        ({"sub": "ada\n2026-01-01 INFO forged"}, "unprintable"),
        ({"sub": "ada\u2028forged"}, "unprintable"),
    ],
)
async def test_token_with_a_wrong_claim_is_refused_with_the_reason(
    provider: Provider, changed: dict[str, Any], reason: str
) -> None:
    async with accepting(provider) as tokens:
        assert reason in await refusal(tokens, provider.token(ONE, **changed))


@pytest.mark.parametrize("expires", [1e300, 10**400, "99999999999"])
async def test_token_may_expire_in_a_distant_future(provider: Provider, expires: object) -> None:
    async with accepting(provider) as tokens:
        token = provider.token(ONE, exp=expires)
        assert await tokens.authenticate(token) is await tokens.authenticate(token)


async def test_clocks_may_differ_by_the_leeway_and_no_more(provider: Provider) -> None:
    async with accepting(provider, leeway_seconds=30) as tokens:
        assert (await tokens.authenticate(provider.token(ONE, seconds=-20))).name == "ada"
        assert (await tokens.authenticate(provider.token(ONE, nbf=int(time.time()) + 20))).name == "ada"
        assert "expired" in await refusal(tokens, provider.token(ONE, seconds=-40))
        assert "not valid yet" in await refusal(tokens, provider.token(ONE, nbf=int(time.time()) + 40))


async def test_signature_of_another_key_is_refused(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        assert "signature is wrong" in await refusal(tokens, provider.token(TWO, "one"))


async def test_changed_claims_are_refused(provider: Provider) -> None:
    header, content, signature = provider.token(ONE).split(".")
    forged = json.loads(base64.urlsafe_b64decode(content + "==")) | {"sub": "root"}
    async with accepting(provider) as tokens:
        assert "signature is wrong" in await refusal(tokens, f"{header}.{encoded(forged)}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_token_without_signature_is_refused(provider: Provider, algorithm: str) -> None:
    _, content, signature = provider.token(ONE).split(".")
    header = encoded({"alg": algorithm, "kid": "one"})
    async with accepting(provider) as tokens:
        assert "another kind than RS256" in await refusal(tokens, f"{header}.{content}.")
        assert "another kind than RS256" in await refusal(tokens, f"{header}.{content}.{signature}")


async def test_public_key_is_no_secret_to_sign_with(provider: Provider) -> None:
    public = ONE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = provider.token(ONE).split(".")[1]
    signed = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{content}"
    signature = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), hashlib.sha256)).decode().rstrip("=")
    async with accepting(provider) as tokens:
        assert "another kind than RS256" in await refusal(tokens, f"{signed}.{signature}")


async def test_algorithm_that_is_not_pinned_is_refused_though_the_key_is_the_providers(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        assert "another kind than RS256" in await refusal(tokens, provider.token(ONE, algorithm="RS512"))
        assert "another kind than RS256" in await refusal(tokens, provider.token(EC, "ec", "ES256"))


async def test_key_is_not_used_with_an_algorithm_of_another_kind(provider: Provider) -> None:
    async with accepting(provider, algorithms=("RS256", "ES256")) as tokens:
        assert "does not have" in await refusal(tokens, provider.token(EC, "one", "ES256"))


async def test_keys_that_the_token_brings_along_are_not_used(provider: Provider) -> None:
    content = {"iss": provider.issuer, "aud": "gemma", "sub": "ada", "exp": int(time.time()) + 300}
    headers = {"kid": "mine", "jwk": jwk(TWO), "jku": f"{provider.issuer}/theirs", "x5u": f"{provider.issuer}/theirs"}
    async with accepting(provider) as tokens:
        assert "does not have" in await refusal(tokens, jwt.encode(content, TWO, "RS256", headers))
    assert "/theirs" not in provider.asked


async def test_critical_extensions_are_refused(provider: Provider) -> None:
    content = {"iss": provider.issuer, "aud": "gemma", "sub": "ada", "exp": int(time.time()) + 300}
    token = jwt.encode(content, ONE, "RS256", {"kid": "one", "crit": ["exp"], "exp": 1})
    async with accepting(provider) as tokens:
        assert "critical extensions" in await refusal(tokens, token)


async def test_oversized_token_is_refused_unread(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        assert "longer than 16384" in await refusal(tokens, provider.token(ONE, roles=["r" * 100] * 200))
    assert provider.asked == []


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "\xff.\xff.\xff",
        f"{encoded([])}.{encoded({})}.",
        f"{encoded({'alg': 'RS256'})}.{encoded([])}.",
        f"{encoded({'alg': 'RS256', 'kid': 7})}.{encoded({'iss': 'x'})}.",
        f"{encoded({'alg': 'RS256'})}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.",
    ],
)
async def test_what_is_no_token_is_refused_as_malformed(provider: Provider, token: str) -> None:
    async with accepting(provider) as tokens:
        with pytest.raises(AuthenticationError, match="The token is malformed"):
            await tokens.authenticate(token)


async def test_token_is_never_accepted_once_a_letter_has_changed(provider: Provider) -> None:
    token = provider.token(ONE)
    async with accepting(provider) as tokens:
        await tokens.authenticate(token)
        for place in range(0, len(token), 7):
            letter = "A" if token[place] != "A" else "B"
            with pytest.raises(AuthenticationError):
                await tokens.authenticate(token[:place] + letter + token[place + 1 :])


async def test_no_log_line_has_a_token_or_its_claims(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = provider.token(ONE, email="ada@example.com"), provider.token(TWO, "one")
    async with accepting(provider) as tokens:
        await tokens.authenticate(good)
        await refusal(tokens, bad)
        shown = repr(tokens) + caplog.text
    assert not [part for token in (good, bad) for part in token.split(".")[1:] if part in shown]
    assert "ada" not in shown


async def test_rotated_key_is_found_by_its_first_token(provider: Provider) -> None:
    async with accepting(provider, refresh_seconds=1000) as tokens:
        keys = tokens.key_sets["company"]
        await tokens.authenticate(provider.token(ONE))
        provider.keys = [jwk(ONE, "one"), jwk(TWO, "two")]
        assert "does not have" in await refusal(tokens, provider.token(TWO, "two"))
        keys._begun -= 10
        assert (await tokens.authenticate(provider.token(TWO, "two"))).name == "ada"


async def until_read(keys: KeySet, provider: Provider) -> None:
    """Waits for a reading that has begun after now."""
    asked = provider.asked.count("/keys")
    async with asyncio.timeout(5):
        while provider.asked.count("/keys") < asked + 2:
            await asyncio.sleep(0.005)


async def test_token_whose_key_is_withdrawn_stops_working_with_the_next_reading(provider: Provider) -> None:
    async with accepting(provider, refresh_seconds=0.02) as tokens:
        background = asyncio.create_task(tokens.run())
        token = provider.token(ONE)
        await tokens.authenticate(token)
        provider.keys = [jwk(TWO, "two")]
        await until_read(tokens.key_sets["company"], provider)
        assert "has no more" in await refusal(tokens, token)
        background.cancel()
        await asyncio.wait([background])


async def test_remembered_token_ends_with_its_expiry(provider: Provider) -> None:
    async with accepting(provider, leeway_seconds=0) as tokens:
        await tokens.authenticate(provider.token(ONE))
        # Whole seconds, of which at least a half is left.
        expires = int(time.time() + 1.5)
        token = provider.token(ONE, exp=expires)
        first = await tokens.authenticate(token)
        assert await tokens.authenticate(token) is first
        await asyncio.sleep(expires - time.time() + 0.01)
        assert "expired" in await refusal(tokens, token)


async def test_remembered_token_is_not_verified_again(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        token = provider.token(ONE)
        assert await tokens.authenticate(token) is await tokens.authenticate(token)


async def test_provider_that_is_down_makes_known_tokens_work_and_new_keys_wait(provider: Provider) -> None:
    async with accepting(provider) as tokens:
        token = provider.token(ONE)
        await tokens.authenticate(token)
        provider.down = True
        tokens.key_sets["company"]._begun -= 10
        with pytest.raises(ProviderUnavailableError):
            await tokens.authenticate(provider.token(TWO, "two"))
        assert (await tokens.authenticate(token)).name == "ada"
        assert (await tokens.authenticate(provider.token(ONE, sub="grace"))).name == "grace"


async def test_tokens_of_two_providers_are_told_apart(provider: Provider) -> None:
    with Provider([jwk(TWO, "one")]) as other:
        tokens = Tokens({"company": provider.settings(), "partner": other.settings()})
        assert (await tokens.authenticate(provider.token(ONE))).id == "company:ada"
        assert (await tokens.authenticate(other.token(TWO))).id == "partner:ada"
        assert "signature is wrong" in await refusal(tokens, other.token(ONE))
        await tokens.aclose()


async def test_token_that_no_grant_is_meant_for_is_refused_with_403(provider: Provider) -> None:
    async with accepting(provider, grant_claim="groups", grants={"staff": Grant()}) as tokens:
        with pytest.raises(PermissionDeniedError) as caught:
            await tokens.authenticate(provider.token(ONE, groups=["guests"]))
    assert (caught.value.status, caught.value.code) == (403, "token_not_allowed")
    assert "guests" not in caught.value.message


ISSUER = "https://id.example.com"


@pytest.mark.parametrize(
    ("providers", "fault"),
    [
        ({"a": {}, "b": {}}, r"auth\.jwt\.b\.issuer: auth\.jwt\.a has the same"),
        ({"a:b": {}}, r"auth\.jwt\.a:b: a name has letters"),
        ({"anonymous": {}}, "is not anonymous or other"),
        ({"a": {"grants": {"staff": Grant()}}}, r"auth\.jwt\.a\.grants: .*grant_claim: groups"),
    ],
)
def test_providers_that_cannot_work_are_refused_with_the_fix(providers: dict[str, dict[str, Any]], fault: str) -> None:
    settings = {name: JwtSettings(issuer=ISSUER, audience=("gemma",), **more) for name, more in providers.items()}
    with pytest.raises(ConfigurationError, match=fault):
        Tokens(settings)


PAGE = (Path(__file__).parents[2] / "docs" / "jwt.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_examples_of_the_documentation_are_valid(example: str) -> None:
    settings = AuthSettings.model_validate(yaml.safe_load(example)["auth"])
    assert len(Tokens(settings.jwt).key_sets) == len(settings.jwt)
    assert settings.jwt or settings.trusted_proxies
