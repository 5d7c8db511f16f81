"""The files that keys stand in: what they hold, read and checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from gateway.access import key_yaml
from gateway.errors import ConfigurationError
from gateway.settings import AuthSettings, Frozen, Grant

#: Callers without a key, and keys beyond those that metrics tell apart, are called so.
_RESERVED = frozenset({"anonymous", "other"})

#: Characters of an id or a name in an error message, and what keys begin with, ours and others'.
_LONGEST_SHOWN = 100
_KEY = re.compile(r"\bsk-")


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _free(identity: str) -> str:
    if identity in _RESERVED:
        raise ValueError("is reserved; choose another")
    return identity


def _listed(keys: object) -> object:
    """The list is empty where its last key was removed by hand. That must count: it may be a revocation."""
    return () if keys is None else keys


Moment = Annotated[datetime, AfterValidator(_in_utc)]
PublicId = Annotated[str, Field(pattern=r"^[a-z0-9]+$"), AfterValidator(_free)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Previous(Frozen):
    """The secret that a key had before its rotation."""

    sha256: Sha256
    expires: Moment


class KeyRecord(Grant):
    """One key as a file holds it. Times without a zone are UTC."""

    id: PublicId
    name: str
    sha256: Sha256
    created: Moment
    expires: Moment | None = None
    previous: Previous | None = None
    metadata: Mapping[str, str] = {}

    @property
    def grant(self) -> Grant:
        """What the key may do."""
        return Grant(**{name: getattr(self, name) for name in Grant.model_fields})

    def expired(self, now: datetime) -> bool:
        """Whether no secret of the key is valid any more."""
        return self.expires is not None and self.expires <= now

    def rotating(self, now: datetime) -> Previous | None:
        """The previous secret, while it is valid beside the current one."""
        valid = self.previous is not None and self.previous.expires > now and not self.expired(now)
        return self.previous if valid else None

    def document(self) -> dict[str, Any]:
        """As it stands in a file: who before what, and nothing that was not set."""
        written = self.model_dump(mode="json", exclude_defaults=True)
        # Sets have no order of their own; a file that changes by itself makes bad diffs.
        return {name: sorted(written[name]) if name in _SETS else written[name] for name in _ORDER if name in written}


_ORDER = ("id", "name", "sha256", "created", "expires", "previous", *Grant.model_fields, "metadata")
_SETS = frozenset({"endpoints", "modalities"})


class KeyFile(Frozen):
    """The document: `keys:`, a list of records."""

    keys: Annotated[tuple[KeyRecord, ...], BeforeValidator(_listed)]

    def text(self) -> str:
        """The document as YAML."""
        return key_yaml.dump(record.document() for record in self.keys)


def read(path: Path) -> KeyFile:
    """The key file, checked. Raises ConfigurationError with the fault and the fix."""
    tree = _tree(path)
    try:
        file = KeyFile.model_validate(tree)
    except ValidationError as fault:
        # Only places and reasons: pydantic's own text would repeat the values.
        lines = [f"  {_field(e['loc'])}{_owner(tree, e['loc'])}: {_reason(e['loc'], e['msg'])}" for e in fault.errors()]
        raise ConfigurationError("\n".join([f"the key file {path} is invalid:", *lines])) from None
    _refuse_duplicates((path, record) for record in file.keys)
    return file


def read_all(settings: AuthSettings) -> tuple[KeyRecord, ...]:
    """The keys of `keys_file` and of every file in `keys_directory`.

    Raises ConfigurationError where one of them cannot be read or is invalid, or where an id stands in two places.
    """
    found = [(path, record) for path in paths(settings) for record in read(path).keys]
    _refuse_duplicates(found)
    return tuple(record for _, record in found)


def paths(settings: AuthSettings) -> tuple[Path, ...]:
    """The files to read, in order. Raises ConfigurationError where the folder cannot be listed, or where none is."""
    single = [settings.keys_file] if settings.keys_file is not None else []
    if settings.keys_directory is None:
        return tuple(single)
    try:
        listed = _listing(settings.keys_directory)
    except (OSError, ValueError) as fault:
        raise ConfigurationError(
            f"cannot list auth.keys_directory: {fault}; it must be a folder of key files (*.yaml, *.yml) that the "
            "gateway may read"
        ) from fault
    if not single and not listed:
        raise ConfigurationError(
            f"there is no key file (*.yaml, *.yml) in auth.keys_directory {settings.keys_directory}; make one:  "
            f"gemma-gateway keys create --file {settings.keys_directory / 'keys.yaml'} --name me"
        )
    # The file may lie in the folder: it is no second one.
    known = {path.absolute() for path in single}
    return (*single, *(path for path in listed if path.absolute() not in known))


def fingerprint(settings: AuthSettings) -> tuple[object, ...]:
    """A cheap value that changes whenever one of the files does, or which there are. Never raises.

    Symbolic links are followed, so that it sees Kubernetes replace the folder behind a mounted Secret's `..data`.
    """
    single = () if settings.keys_file is None else (look(settings.keys_file),)
    if settings.keys_directory is None:
        return single
    try:
        return (*single, *map(look, _listing(settings.keys_directory)))
    except (OSError, ValueError) as fault:
        return (*single, str(fault))


def _listing(folder: Path) -> list[Path]:
    """Key files in order of their names. Hidden ones are editors', our own half-written ones, and Kubernetes'."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and not path.name.startswith(".")
    )


def look(path: Path) -> tuple[object, ...]:
    """A value that changes with the file, or with its coming and going. Never raises."""
    try:
        seen = path.stat()
    except (OSError, ValueError) as fault:
        return (str(path), str(fault))
    # The time of the inode's change too: it moves when permissions are mended, and `cp -p` cannot set it.
    return (str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _tree(path: Path) -> object:
    """What the file holds. Raises ConfigurationError."""
    try:
        tree = key_yaml.load(path.read_bytes())
    except FileNotFoundError as fault:
        raise ConfigurationError(
            f"there is no key file {path}; make one:  gemma-gateway keys create --file {path} --name me"
        ) from fault
    except (OSError, ValueError) as fault:
        raise ConfigurationError(f"cannot read the key file {path}: {fault}") from fault
    return {} if tree is None else tree


def _field(place: Iterable[int | str]) -> str:
    # A field's name may be a key that was pasted in the wrong place.
    return ".".join("***" if str(part).startswith("sk-") else str(part) for part in place) or "(root)"


def _owner(tree: object, place: Sequence[int | str]) -> str:
    """Of a fault in a record: which one that is, by its id and name as far as they can be shown."""
    if len(place) < 2 or not isinstance(tree, dict) or not isinstance(records := tree.get("keys"), list):
        return ""
    record = records[int(place[1])]
    found = [record.get(field) for field in ("id", "name")] if isinstance(record, dict) else []
    shown = [text for text in found if isinstance(text, str) and _showable(text)]
    return f" ({', '.join(shown)})" if shown else ""


def _showable(text: str) -> bool:
    """Whether it is a name that can stand in a line, and no key that was pasted in the wrong place."""
    return len(text) <= _LONGEST_SHOWN and text.isprintable() and _KEY.search(text) is None


def _reason(place: Sequence[int | str], reason: str) -> str:
    if tuple(place) == ("keys",) and reason == "Field required":
        # A file that is being written is empty for a moment: that must not lock everybody out.
        return "is missing; to let nobody in, write:  keys: []"
    return reason


def _refuse_duplicates(found: Iterable[tuple[Path, KeyRecord]]) -> None:
    places: dict[str, Path] = {}
    for path, record in found:
        if (other := places.get(record.id)) is not None:
            where = f"twice in {path}" if other == path else f"in {other} and in {path}"
            raise ConfigurationError(f"the key id {record.id} stands {where}; remove one of the two")
        places[record.id] = path
