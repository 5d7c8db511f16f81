"""Tokens of OpenID Connect providers: who is calling, by what a provider has signed."""

from __future__ import annotations

import asyncio
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jwt
import msgspec
from cachetools import LRUCache

from gateway.access import claims
from gateway.access.callers import Caller
from gateway.access.jwks import KeySet
from gateway.access.signing_keys import SigningKeys
from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import JwtSettings

#: Characters. Some providers list all the groups of a user, but headers have their limits elsewhere, too.
_LONGEST = 16 * 1024

#: Characters of an unknown issuer in an error message.
_LONGEST_SHOWN = 200

#: Unix time, in the year 5138. No token lives longer; integers in JSON may be too large to compute with.
_END_OF_TIME = 10**11

#: Verified tokens that are remembered, of some hundred bytes each.
_MOST_REMEMBERED = 10_000

#: Callers are told apart by `<provider>:<subject>`; what metrics call others must stay theirs.
_NAME = re.compile(r"(?!anonymous$|other$)[A-Za-z0-9_.-]{1,64}")

#: What clients hear of PyJWT's errors, the most specific first.
_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "The token has expired; get a new one from its provider."),
    (jwt.ImmatureSignatureError, "The token is not valid yet; if it should be, a clock is wrong."),
    (jwt.InvalidAudienceError, "The token is not meant for this gateway: none of its audiences is {audience}."),
    (jwt.MissingRequiredClaimError, "The token lacks a claim that it needs: it must have iss, aud and exp."),
    (jwt.InvalidSignatureError, "The token's signature is wrong."),
    (jwt.PyJWTError, "The token is malformed."),
)


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw = msgspec.Raw()


class _Payload(msgspec.Struct):
    iss: str


@dataclass(frozen=True, slots=True)
class _Provider:
    name: str
    settings: JwtSettings
    keys: KeySet


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token was found to be, by these keys; `expires` is in Unix time."""

    caller: Caller
    expires: float
    keys: SigningKeys
    source: KeySet


class Tokens:
    """Checks tokens of the configured providers, by the providers' names. `clock` is Unix time.

    A token that was verified is remembered until it expires or its provider's keys change: then its signature is
    checked again, so that a key which has been withdrawn signs nobody in any more.
    """

    def __init__(self, providers: Mapping[str, JwtSettings], *, clock: Callable[[], float] = time.time) -> None:
        """Connects to nothing yet. Raises ConfigurationError for providers that cannot be told apart."""
        for fault in _faults(providers):
            raise ConfigurationError(fault)
        self._clock = clock
        self._providers = {each.issuer: _Provider(name, each, KeySet(name, each)) for name, each in providers.items()}
        self._verified: LRUCache[bytes, _Verified] = LRUCache(_MOST_REMEMBERED)

    @property
    def key_sets(self) -> Mapping[str, KeySet]:
        """The providers' keys, by the providers' names."""
        return {provider.name: provider.keys for provider in self._providers.values()}

    async def authenticate(self, token: str) -> Caller:
        """The caller that the token names.

        Raises AuthenticationError, PermissionDeniedError where no grant is meant for the token, and
        ProviderUnavailableError.
        """
        if len(token) > _LONGEST:
            raise _refused(f"The token is longer than {_LONGEST} characters.")
        digest = sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and known.keys is known.source.keys and self._clock() < known.expires:
            return known.caller
        verified = await self._verify(token)
        self._verified[digest] = verified
        return verified.caller

    async def run(self) -> None:
        """Keeps the providers' keys fresh, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for key_set in self.key_sets.values():
                group.create_task(key_set.run())

    async def aclose(self) -> None:
        """Lets go of connections."""
        for key_set in self.key_sets.values():
            await key_set.aclose()

    async def _verify(self, token: str) -> _Verified:
        header, issuer = _unverified(token)
        provider = self._providers.get(issuer)
        if provider is None:
            raise _refused(f"The token's issuer is not known here: {issuer[:_LONGEST_SHOWN]!r}.")
        settings = provider.settings
        if header.alg not in settings.algorithms:
            raise _refused(f"The token's signature is of another kind than {' or '.join(settings.algorithms)}.")
        key = await provider.keys.find(header.kid, header.alg)
        if key is None:
            raise _refused("The token is signed by a key that its provider does not have, or has no more.")
        # Nothing is awaited from here on: the key is one of these.
        keys = provider.keys.keys
        content = _decode(token, key, header.alg, settings)
        expires = min(int(content["exp"]), _END_OF_TIME) + settings.leeway_seconds
        return _Verified(claims.caller(provider.name, settings, content), expires, keys, provider.keys)


def _faults(providers: Mapping[str, JwtSettings]) -> Iterator[str]:
    issuers: dict[str, str] = {}
    for name, settings in providers.items():
        key = f"auth.jwt.{name}"
        if not _NAME.fullmatch(name):
            yield f"{key}: a name has letters, digits and ._- only, and is not anonymous or other; choose another"
        if settings.issuer in issuers:
            yield (
                f"{key}.issuer: auth.jwt.{issuers[settings.issuer]} has the same; keep one of the two, "
                f"with the audiences of both:  audience: [...]"
            )
        if settings.grant_claim is None and settings.grants.keys() - {"*"}:
            yield f"{key}.grants: nothing says which of them a token has; add  grant_claim: groups  (or another claim)"
        issuers[settings.issuer] = name


def _unverified(token: str) -> tuple[_Header, str]:
    """The header, and the issuer, as the token has them: to find what to check it by.

    Raises AuthenticationError.
    """
    try:
        first, second, _ = token.encode("ascii").split(b".")
        header = msgspec.json.decode(_base64(first), type=_Header)
        issuer = msgspec.json.decode(_base64(second), type=_Payload).iss
    except (ValueError, RecursionError):
        raise _refused("The token is malformed.") from None
    if bytes(header.crit):
        # RFC 7515, section 4.1.11: what is critical and not understood must be refused. Nothing is understood here.
        raise _refused("The token has critical extensions, which are not supported.")
    return header, issuer


def _base64(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _decode(token: str, key: jwt.PyJWK, algorithm: str, settings: JwtSettings) -> dict[str, Any]:
    """The claims, once all is well with signature, times, issuer and audience. Raises AuthenticationError."""
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_seconds,
            options={"require": ["exp", "iss", "aud"]},
        )
    except (jwt.PyJWTError, RecursionError) as fault:
        reason = next((text for kind, text in _REASONS if isinstance(fault, kind)), _REASONS[-1][1])
        raise _refused(reason.format(audience=" or ".join(settings.audience))) from None


def _refused(message: str) -> AuthenticationError:
    return AuthenticationError(message, code="invalid_token")
