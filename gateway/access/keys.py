"""API keys: who is calling, by a secret of which only the SHA-256 is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from hmac import compare_digest

from gateway.access.callers import Caller
from gateway.access.key_files import KeyRecord, read_all
from gateway.errors import AuthenticationError
from gateway.settings import AuthSettings

PREFIX = "sk-gemma-"


class Standing(Enum):
    """What a secret that was presented is to the key with its id."""

    CURRENT = "current"
    PREVIOUS = "previous"
    EXPIRED = "expired"
    REPLACED = "replaced"
    WRONG = "wrong"


#: What the caller hears. The same for a wrong secret and an unknown id: which ids there are is nobody's business.
_REASONS = {
    Standing.EXPIRED: "This API key has expired",
    Standing.REPLACED: "This API key has been replaced by a new one",
    Standing.WRONG: "Incorrect API key provided",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What authentication needs of a record, ready to compare. Times are in seconds since 1970."""

    caller: Caller
    digest: bytes
    expires: float
    previous: bytes
    previous_expires: float

    @classmethod
    def of(cls, record: KeyRecord) -> Entry:
        """Makes a record's entry."""
        expires = record.expires.timestamp() if record.expires else float("inf")
        caller = Caller(record.id, record.name, record.grant, label=record.id)
        if (before := record.previous) is None:
            return cls(caller, bytes.fromhex(record.sha256), expires, b"", 0.0)
        previous_expires = min(before.expires.timestamp(), expires)
        return cls(caller, bytes.fromhex(record.sha256), expires, bytes.fromhex(before.sha256), previous_expires)

    def standing(self, digest: bytes, now: float) -> Standing:
        """Compares in constant time."""
        if compare_digest(digest, self.digest):
            return Standing.CURRENT if now < self.expires else Standing.EXPIRED
        if compare_digest(digest, self.previous):
            return Standing.PREVIOUS if now < self.previous_expires else Standing.REPLACED
        return Standing.WRONG


@dataclass(frozen=True, slots=True)
class KeyStore:
    """The keys of one reading of the files; a changed file is a new store. `clock` tells seconds since 1970."""

    entries: Mapping[str, Entry] = field(repr=False)
    clock: Callable[[], float] = time.time

    @classmethod
    def load(cls, settings: AuthSettings) -> KeyStore:
        """Reads the files that the settings name. Raises ConfigurationError with the fault and the fix."""
        return cls.of(read_all(settings))

    @classmethod
    def of(cls, records: Iterable[KeyRecord], clock: Callable[[], float] = time.time) -> KeyStore:
        """A store of these keys."""
        return cls({record.id: Entry.of(record) for record in records}, clock)

    def find(self, presented: str) -> Caller | None:
        """Whose key it is; None where it is not good. What `authenticate` does, without saying why not."""
        entry = self.entries.get(presented[len(PREFIX) :].partition("-")[0])
        if entry is None or not presented.startswith(PREFIX):
            return None
        digest = sha256(presented.encode()).digest()
        now = self.clock()
        if compare_digest(digest, entry.digest):
            return entry.caller if now < entry.expires else None
        return entry.caller if compare_digest(digest, entry.previous) and now < entry.previous_expires else None

    def authenticate(self, presented: str) -> Caller:
        """Finds the key by its public id, then compares digests in constant time.

        Raises AuthenticationError for a key that is unknown, wrong, revoked, replaced or expired.
        """
        entry = self.entries.get(public_id(presented))
        if entry is None:
            raise _rejected(Standing.WRONG, presented)
        standing = entry.standing(digest(presented), self.clock())
        if standing is Standing.CURRENT or standing is Standing.PREVIOUS:
            return entry.caller
        raise _rejected(standing, presented)


def public_id(presented: str) -> str:
    """The id inside `sk-gemma-<id>-<secret>`; empty where the key does not look like that."""
    if not presented.startswith(PREFIX):
        return ""
    identity, dash, _ = presented[len(PREFIX) :].partition("-")
    return identity if dash else ""


def digest(key: str) -> bytes:
    """What is stored of a key: its SHA-256."""
    return sha256(key.encode()).digest()


def mask(presented: str) -> str:
    """What may be shown of a key: our public id, or the first letters of a key that is not ours."""
    if identity := public_id(presented):
        return f"{PREFIX}{identity[:16]}-***"
    return f"{presented[:3]}***" if len(presented) >= 16 else "***"


def _rejected(standing: Standing, presented: str) -> AuthenticationError:
    reason = f"{_REASONS[standing]}: {mask(presented)}"
    return AuthenticationError(f"{reason}. Ask whoever runs this gateway for a valid key.")
