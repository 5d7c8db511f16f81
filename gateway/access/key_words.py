"""Tells operators in words what keys are and may do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.access.key_edits import Rotated, Verified
from gateway.access.key_files import KeyRecord
from gateway.access.keys import Standing
from gateway.settings import Grant, Modality

#: How one says each limit.
_LIMITS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "tokens_per_day": "tokens/day",
    "max_in_flight": "at once",
}

_HEADINGS = ("ID", "NAME", "CREATED", "EXPIRES", "MAY", "ROTATING")


def table(records: Iterable[KeyRecord], now: datetime) -> str:
    """The keys in aligned columns under headings."""
    rows = [_HEADINGS, *(_row(record, now) for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def details(record: KeyRecord, now: datetime) -> dict[str, Any]:
    """A key for programs: what the file holds of it but hashes, and what that means now."""
    shown = {name: value for name, value in record.document().items() if name not in ("sha256", "previous")}
    rotating = record.rotating(now)
    until = rotating.expires.isoformat() if rotating else None
    return {**shown, "expired": record.expired(now), "rotating_until": until}


def permissions(grant: Grant) -> str:
    """What a grant allows, shortly: `everything` where it restricts nothing."""
    parts = []
    if grant.models is not None:
        parts.append(", ".join(grant.models) or "no model")
    if grant.endpoints is not None:
        parts.append(", ".join(sorted(grant.endpoints)) or "no endpoint")
    if grant.modalities is not None:
        parts.append(", ".join(sorted({Modality.TEXT, *grant.modalities})))
    limits = grant.limits.model_dump()
    parts += [f"{limits[name]} {words}" for name, words in _LIMITS.items() if limits[name] is not None]
    if grant.priority:
        parts.append(f"priority {grant.priority}")
    return "; ".join(parts) or "everything"


def rotation(rotated: Rotated, path: Path) -> Iterator[str]:
    """What has become of a key's secrets."""
    record, previous = rotated.record, rotated.record.previous
    yield f"A new secret for {record.id} ({_shown(record.name)}). Keep it now: only its hash is in {path}."
    yield f"The old one is valid until {_moment(previous.expires)}." if previous else "The old one is valid no more."
    if rotated.dropped:
        yield f"An even older one, which was valid until {_moment(rotated.dropped.expires)}, is valid no more."
    if record.expires:
        yield f"The key itself expires {_moment(record.expires)}."


def verdict(verified: Verified, now: datetime) -> str:
    """Whether a key is valid, and what it is and may do, or why it is not."""
    record = verified.record
    if record is None:
        return "Not valid: the file has no such key. It was revoked, or belongs to another file."
    if not verified.valid:
        return f"Not valid: {record.id} ({_shown(record.name)}) {_fault(verified.standing, record)}."
    lines = [
        f"Valid: {record.id} ({_shown(record.name)})",
        f"expires: {_until(record, now)}",
        f"may: {permissions(record.grant)}",
        *(f"{_shown(name)}: {_shown(value)}" for name, value in record.metadata.items()),
    ]
    if verified.standing is Standing.PREVIOUS and record.previous:
        lines.insert(1, f"replaced by a new secret; this one is valid until {_moment(record.previous.expires)}")
    return "\n".join(lines)


def _fault(standing: Standing, record: KeyRecord) -> str:
    if standing is Standing.EXPIRED and record.expires:
        return f"expired {_moment(record.expires)}"
    if standing is Standing.REPLACED:
        return "has a new secret, and this one's time beside it is over"
    return "has another secret"


def _row(record: KeyRecord, now: datetime) -> tuple[str, ...]:
    rotating = record.rotating(now)
    return (
        record.id,
        _shown(record.name),
        f"{record.created:%Y-%m-%d}",
        _until(record, now),
        permissions(record.grant),
        f"until {_moment(rotating.expires)}" if rotating else "",
    )


def _until(record: KeyRecord, now: datetime) -> str:
    if record.expires is None:
        return "never"
    return f"expired {_moment(record.expires)}" if record.expired(now) else _moment(record.expires)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _shown(text: str) -> str:
    """A file may be written by hand: what would move the cursor is shown, not obeyed."""
    return text if text.isprintable() else ascii(text)
