"""API keys: who is calling, by a secret of which only the SHA-256 is stored."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import AuthSettings, is_loopback

PREFIX = "sk-gemma-"

#: 32 random bytes: a plain SHA-256 suffices, since nobody can try 2**256 secrets (passwords would need a slow hash).
SECRET_BYTES = 32

ID_BYTES = 5


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `id` is safe to log and to count by."""

    id: str
    name: str


ANONYMOUS = Caller("anonymous", "anonymous")


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class KeyRecord(BaseModel):
    """One key as the file holds it. Times without a zone are UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: Moment
    expires: Moment | None = None

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


class KeyFile(BaseModel):
    """The document: `keys:`, a list of records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyRecord, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """What the check of a request needs of a record, ready to compare."""

    digest: bytes
    caller: Caller
    expires: float


@dataclass(frozen=True)
class KeyStore:
    """The keys of one reading of the file; a changed file is a new store."""

    entries: Mapping[str, _Entry] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> KeyStore:
        """Reads the file. Raises ConfigurationError with the fault and the fix."""
        return cls({record.id: _entry(record) for record in read(path).keys})

    def authenticate(self, presented: str) -> Caller:
        """Finds the key by its public id, then compares digests in constant time.

        Raises AuthenticationError for a key that is unknown, wrong, revoked or expired.
        """
        entry = self.entries.get(_public_id(presented))
        if entry is None or not hmac.compare_digest(_digest(presented), entry.digest):
            raise _rejected("Incorrect API key provided", presented)
        if entry.expires <= time.time():
            raise _rejected("This API key has expired", presented)
        return entry.caller


class Access:
    """Decides who a request comes from. Without a store the gateway is open: any key, or none, will do."""

    def __init__(self, store: KeyStore | None) -> None:
        self._store = store

    @classmethod
    def from_settings(cls, auth: AuthSettings, host: str) -> Access:
        """Applies the policy for the listening address `host`.

        Raises ConfigurationError where an address that others can reach would be open to everyone.
        """
        if auth.keys_file is not None:
            return cls(KeyStore.load(auth.keys_file))
        if is_loopback(host):
            return cls(None)
        raise ConfigurationError(
            f"listening on {host} without API keys would let anyone in who can reach it. Make a key:\n"
            "  gemma-gateway keys create --file keys.yaml --name me\n"
            "and start with:  --keys-file keys.yaml\n"
            "or listen on this machine only:  --host 127.0.0.1"
        )

    @property
    def open(self) -> bool:
        """Whether requests pass without a key."""
        return self._store is None

    def authenticate(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """The caller of a request with these `authorization` and `x-api-key` header values.

        Raises AuthenticationError.
        """
        store = self._store
        if store is None:
            return ANONYMOUS
        return store.authenticate(_presented(authorization, api_key))


def _presented(authorization: bytes | None, api_key: bytes | None) -> str:
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        key = authorization[7:].strip()
    else:
        key = (api_key or b"").strip()
    if not key:
        raise AuthenticationError(
            "No API key was provided. Send it in the Authorization header (Authorization: Bearer KEY) "
            "or in the x-api-key header."
        )
    return key.decode("latin-1")


def _rejected(reason: str, presented: str) -> AuthenticationError:
    return AuthenticationError(f"{reason}: {mask(presented)}. Ask whoever runs this gateway for a valid key.")


def mask(presented: str) -> str:
    """What may be shown of a key: our public id, or the first letters of a key that is not ours."""
    if identity := _public_id(presented):
        return f"{PREFIX}{identity[:16]}-***"
    return f"{presented[:3]}***" if len(presented) >= 16 else "***"


def _public_id(presented: str) -> str:
    """The id inside `sk-gemma-<id>-<secret>`; empty where the key does not look like that."""
    if not presented.startswith(PREFIX):
        return ""
    identity, dash, _ = presented[len(PREFIX) :].partition("-")
    return identity if dash else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _entry(record: KeyRecord) -> _Entry:
    expires = record.expires.timestamp() if record.expires else float("inf")
    return _Entry(bytes.fromhex(record.sha256), Caller(record.id, record.name), expires)


def read(path: Path) -> KeyFile:
    """The key file, checked. Raises ConfigurationError with the fault and the fix."""
    try:
        document: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError as fault:
        raise ConfigurationError(
            f"there is no key file {path}; make one:  gemma-gateway keys create --file {path} --name me"
        ) from fault
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ConfigurationError(f"cannot read the key file {path}: {fault}") from fault
    try:
        file = KeyFile.model_validate(document or {})
    except ValidationError as fault:
        # Only places and reasons: pydantic's own text would repeat the values.
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(root)'}: {e['msg']}" for e in fault.errors()]
        raise ConfigurationError("\n".join([f"the key file {path} is invalid:", *lines])) from fault
    _refuse_duplicates(file, path)
    return file


def _refuse_duplicates(file: KeyFile, path: Path) -> None:
    ids = [record.id for record in file.keys]
    twice = sorted({identity for identity in ids if ids.count(identity) > 1})
    if twice:
        raise ConfigurationError(f"the key file {path} holds the id {twice[0]} twice; remove one of the two")


def create(path: Path, name: str, lifetime: timedelta | None = None) -> str:
    """Adds a key to the file, which is made if it is not there. Returns the key: it is stored nowhere."""
    now = datetime.now(UTC).replace(microsecond=0)
    identity = secrets.token_hex(ID_BYTES)
    key = f"{PREFIX}{identity}-{secrets.token_urlsafe(SECRET_BYTES)}"
    expires = now + lifetime if lifetime is not None else None
    record = KeyRecord(id=identity, name=name, sha256=_digest(key).hex(), created=now, expires=expires)
    with _locked(path):
        before = read(path).keys if path.exists() else ()
        _write(path, KeyFile(keys=(*before, record)))
    return key


def revoke(path: Path, identity: str) -> KeyRecord:
    """Removes the key with that id (or a whole key, by the id in it). Raises ConfigurationError if there is none."""
    wanted = _public_id(identity) or identity
    with _locked(path):
        records = read(path).keys
        found = next((record for record in records if record.id == wanted), None)
        if found is None:
            shown = wanted[: 2 * ID_BYTES]
            raise ConfigurationError(
                f"{path} holds no key with the id {shown!r}; see:  gemma-gateway keys list --file {path}"
            )
        _write(path, KeyFile(keys=tuple(record for record in records if record is not found)))
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps two edits apart. The folder is locked, so that no lock file stays behind."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as fault:
        raise ConfigurationError(f"cannot use the folder of {path}: {fault}") from fault
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, file: KeyFile) -> None:
    """Replaces the file in one step, readable by its owner only, so that no reader ever sees half of it."""
    text = yaml.safe_dump(file.model_dump(mode="json", exclude_none=True), sort_keys=False)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
            temporary.write(text)
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(temporary.name).replace(path)
    except OSError as fault:
        raise ConfigurationError(f"cannot write the key file {path}: {fault}") from fault
