"""What an operator does with the keys of a file: makes, rotates, revokes and verifies them."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from gateway.access.callers import EVERYTHING
from gateway.access.key_files import KeyFile, KeyRecord, Previous, read
from gateway.access.keys import PREFIX, Entry, Standing, digest, public_id
from gateway.errors import ConfigurationError
from gateway.settings import Grant

#: 32 random bytes: a plain SHA-256 suffices, since nobody can try 2**256 secrets (passwords would need a slow hash).
SECRET_BYTES = 32

ID_BYTES = 5

#: How long the old secret stays valid after a rotation, unless told otherwise.
OVERLAP = timedelta(hours=24)

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key's new secret, the record as it is now, and a still valid older secret that this rotation has ended."""

    key: str
    record: KeyRecord
    dropped: Previous | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a presented key is: `record` is None where the file has no key with that id."""

    record: KeyRecord | None
    standing: Standing

    @property
    def valid(self) -> bool:
        """Whether the gateway would let the key in."""
        return self.standing in (Standing.CURRENT, Standing.PREVIOUS)


def create(
    path: Path,
    name: str,
    grant: Grant = EVERYTHING,
    lifetime: timedelta | None = None,
    metadata: Mapping[str, str] = _NOTHING,
) -> str:
    """Adds a key to the file, which is made if it is not there. Returns the key: it is stored nowhere.

    Raises ConfigurationError where the name or the metadata cannot be shown, or the file cannot be read or written.
    """
    _refuse_unreadable(name, metadata)
    now = _now()
    with _locked(path) as (file, folder):
        # One that is empty was made to set its permissions first.
        before = read(file).keys if file.exists() and file.stat().st_size else ()
        identity = fresh_id({record.id for record in before})
        key = _key(identity)
        record = KeyRecord(
            **{field: getattr(grant, field) for field in Grant.model_fields},
            id=identity,
            name=name,
            sha256=digest(key).hex(),
            created=now,
            expires=now + lifetime if lifetime is not None else None,
            metadata=metadata,
        )
        _write(file, folder, KeyFile(keys=(*before, record)))
    return key


def rotate(path: Path, identity: str, overlap: timedelta = OVERLAP, lifetime: timedelta | None = None) -> Rotated:
    """Gives the key with that id (or a whole key's id) a new secret; the old one stays valid for `overlap`.

    `lifetime` renews the key: from now on; without it the key's expiry stays. Only one older secret is kept.
    Raises ConfigurationError where there is no such key, or where it has expired and is not renewed.
    """
    now = _now()
    with _locked(path) as (file, folder):
        records = read(file).keys
        old = _find(records, identity, path)
        if old.expired(now) and lifetime is None:
            raise ConfigurationError(
                f"the key {old.id} has expired, so would its new secret; renew it:\n"
                f"  gemma-gateway keys rotate --file {path} {old.id} --expires-in 90d"
            )
        key = _key(old.id)
        expires = now + lifetime if lifetime is not None else old.expires
        changed = {"sha256": digest(key).hex(), "expires": expires, "previous": _previous(old, now, overlap)}
        record = old.model_copy(update=changed)
        _write(file, folder, KeyFile(keys=tuple(record if each is old else each for each in records)))
    return Rotated(key, record, old.rotating(now))


def revoke(path: Path, identity: str) -> KeyRecord:
    """Removes the key with that id (or a whole key, by the id in it). Raises ConfigurationError if there is none."""
    with _locked(path) as (file, folder):
        records = read(file).keys
        found = _find(records, identity, path)
        _write(file, folder, KeyFile(keys=tuple(record for record in records if record is not found)))
    return found


def verify(key: str, path: Path, now: datetime | None = None) -> Verified:
    """Looks a key up as the gateway does. Raises ConfigurationError where the file cannot be read or is invalid."""
    wanted = public_id(key)
    record = next((each for each in read(path).keys if each.id == wanted), None)
    if record is None:
        return Verified(None, Standing.WRONG)
    return Verified(record, Entry.of(record).standing(digest(key), (now or datetime.now(UTC)).timestamp()))


def fresh_id(taken: Collection[str], draw: Callable[[], str] = lambda: secrets.token_hex(ID_BYTES)) -> str:
    """A public id that is not among those `taken`."""
    while (identity := draw()) in taken:
        pass
    return identity


def _refuse_unreadable(name: str, metadata: Mapping[str, str]) -> None:
    if not name.strip() or not name.isprintable():
        raise ConfigurationError(f"{name!a} is no name for a key: give one that can be read, such as --name alice")
    for text in (*metadata, *metadata.values()):
        if not text.isprintable():
            raise ConfigurationError(f"{text!a} cannot be shown; metadata are plain, such as --metadata team=search")


def _key(identity: str) -> str:
    return f"{PREFIX}{identity}-{secrets.token_urlsafe(SECRET_BYTES)}"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _previous(old: KeyRecord, now: datetime, overlap: timedelta) -> Previous | None:
    """The secret that a rotation replaces; it does not outlive what its key was promised."""
    if not overlap or old.expired(now):
        # Not "valid until now": by a clock that is behind it would still be valid, and a leaked key should not be.
        return None
    until = now + overlap
    return Previous(sha256=old.sha256, expires=min(until, old.expires) if old.expires else until)


def _find(records: tuple[KeyRecord, ...], identity: str, path: Path) -> KeyRecord:
    wanted = public_id(identity) or identity
    found = next((record for record in records if record.id == wanted), None)
    if found is None:
        # Cut: it may be a secret that was pasted by mistake.
        shown = wanted[: 2 * ID_BYTES]
        raise ConfigurationError(
            f"{path} holds no key with the id {shown!r}; see:  gemma-gateway keys list --file {path}"
        )
    return found


@contextmanager
def _locked(path: Path) -> Iterator[tuple[Path, int]]:
    """Keeps two edits apart. Gives the file, behind symbolic links, and its open folder.

    The folder is locked, so that no lock file stays behind.
    """
    try:
        file = path.resolve()
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, RuntimeError) as fault:
        raise ConfigurationError(f"cannot use the folder of {path}: {fault}") from fault
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield file, folder
    finally:
        os.close(folder)


def _write(path: Path, folder: int, file: KeyFile) -> None:
    """Replaces the file in one step, so that no reader ever sees half of it, and for good: a revoked key stays so."""
    try:
        temporary = _beside(path, file.text())
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        os.fsync(folder)
    except OSError as fault:
        raise ConfigurationError(f"cannot write the key file {path}: {fault}") from fault


def _beside(path: Path, text: str) -> Path:
    """A hidden file with that text in the same folder, on the disk when this returns."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _inherit(path, descriptor)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _inherit(path: Path, descriptor: int) -> None:
    """Gives a new file, its owner's alone, the permissions of the one it replaces: the gateway may be another user."""
    if not path.exists():
        return
    before = path.stat()
    # Only root may give files away; for others the file was theirs most likely.
    with suppress(PermissionError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, before.st_mode & 0o777)
