"""Which of the keys that a provider publishes may have signed a token. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

#: Bits. RFC 7518, section 3.3, demands so many of RSA keys.
_SHORTEST_RSA = 2048

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

#: What keys of a kind (`kty`, `crv`) can sign by: RFC 7518, sections 3.3 to 3.5, and RFC 8037.
_ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}


class Jwk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One published key, RFC 7517: what of it matters here. Private parts, should there be any, are never read."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: tuple[str, ...] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


@dataclass(frozen=True, slots=True, eq=False)
class SigningKeys:
    """The keys of one reading: by `kid` and algorithm, and those that are the only ones for their algorithm.

    `published` tells readings apart: as long as it is the same, so is what the keys can verify.
    """

    published: frozenset[Jwk] = frozenset()
    by_kid: Mapping[tuple[str, str], PyJWK] = field(default_factory=dict, repr=False)
    alone: Mapping[str, PyJWK] = field(default_factory=dict, repr=False)

    @property
    def able(self) -> int:
        """Keys that can verify tokens with a `kid`, once for each algorithm."""
        return len(self.by_kid) or len(self.alone)

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key for a token with that header.

        A token may leave out `kid` where one key alone can have signed it: OpenID Connect Core, section 10.1.
        """
        if kid is None:
            return self.alone.get(algorithm)
        return self.by_kid.get((kid, algorithm))


def read(document: bytes, algorithms: Iterable[str]) -> SigningKeys:
    """The keys of a set (JWKS) that sign by one of `algorithms`. Other kinds and uses, and broken ones, are skipped.

    Raises ValueError for what is no such set.
    """
    try:
        members = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.DecodeError, RecursionError) as fault:
        raise ValueError(f"it is no set of keys: {fault}") from fault
    by_kid: dict[tuple[str, str], PyJWK] = {}
    able: defaultdict[str, list[PyJWK]] = defaultdict(list)
    published = list(_published(members))
    for member in published:
        for key in _keys(member, algorithms):
            able[key.algorithm_name].append(key)
            if member.kid is not None:
                by_kid.setdefault((member.kid, key.algorithm_name), key)
    alone = {algorithm: keys[0] for algorithm, keys in able.items() if len(keys) == 1}
    return SigningKeys(frozenset(published), by_kid, alone)


def _published(members: Iterable[msgspec.Raw]) -> Iterator[Jwk]:
    for member in members:
        try:
            key = msgspec.json.decode(member, type=Jwk)
        except (msgspec.DecodeError, RecursionError):
            continue
        if key.use in (None, "sig") and (key.key_ops is None or "verify" in key.key_ops):
            yield key


def _keys(member: Jwk, algorithms: Iterable[str]) -> Iterator[PyJWK]:
    """The key, once for each algorithm that it may be used with."""
    fitting = _ALGORITHMS.get((member.kty, member.crv), ())
    for algorithm in algorithms:
        if algorithm in fitting and member.alg in (None, algorithm):
            try:
                key = PyJWK(msgspec.to_builtins(member), algorithm)
            except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
                continue
            if not isinstance(key.key, RSAPublicKey) or key.key.key_size >= _SHORTEST_RSA:
                yield key
