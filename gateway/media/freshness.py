"""How long a fetched body may be used again, by the rules for shared caches (RFC 9111). Pure.

Only answers with status 200 to plain GETs come here, which makes the rules few: all requests are alike, so that every
`Vary` matches but `*`. Where the RFC leaves a choice, the narrower one is taken: no lifetime is guessed from
Last-Modified, nothing stale is used unasked, and what sets a cookie is meant for one caller and is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

#: A directive with its argument, as a token or quoted; quoted commas do not separate (RFC 9111, section 5.2).
_DIRECTIVE = re.compile(r'([^\s,;="]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?')

#: Delta-seconds beyond this are taken for this (RFC 9111, section 1.2.2).
_FOREVER = 2**31

#: Fields that a 304 says anew (RFC 9111, section 3.2).
_RENEWED = frozenset({"age", "cache-control", "date", "etag", "expires", "last-modified", "vary"})


@dataclass(frozen=True, slots=True)
class Stored:
    """A body with the header fields that decide on its use; `expires` is in seconds of the event loop's clock."""

    body: bytes
    headers: Mapping[str, str]
    expires: float

    def size(self) -> int:
        """Bytes, with an allowance for what surrounds the body."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers.items()) + 1024

    def conditions(self) -> dict[str, str]:
        """The header fields that ask whether it is still current (RFC 9110, section 13.1)."""
        asked = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
        return {name: self.headers[field] for name, field in asked.items() if _sendable(self.headers.get(field, ""))}


def storable(body: bytes, headers: Mapping[str, str], asked: float, now: float, clock: float) -> Stored | None:
    """What to keep of an answer; None where it must not be kept, or could never be used again.

    `asked` and `now` are when it was asked for and came, in seconds of the event loop's clock; `clock` is `now` by the
    calendar, in seconds since 1970.
    """
    directives = _directives(headers)
    varies = "*" in headers.get("vary", "")
    if varies or "set-cookie" in headers or not directives.keys().isdisjoint({"no-store", "private"}):
        return None
    kept = {name: value for name, value in headers.items() if name in _RENEWED}
    age = max(clock - _date(kept, "date", clock), _seconds(kept.get("age")) + now - asked, 0)
    stored = Stored(body, kept, now + _lifetime(kept, directives, clock) - age)
    return stored if stored.expires > now or stored.conditions() else None


def renewed(stored: Stored, headers: Mapping[str, str], asked: float, now: float, clock: float) -> Stored | None:
    """What to keep after a 304 with these headers; arguments and result as of `storable`."""
    return storable(stored.body, {**_without_age(stored.headers), **headers}, asked, now, clock)


def _without_age(headers: Mapping[str, str]) -> dict[str, str]:
    """Age and Date of the earlier answer say nothing on this one."""
    return {name: value for name, value in headers.items() if name not in ("age", "date")}


def _directives(headers: Mapping[str, str]) -> dict[str, str]:
    """Cache-Control by name, in lower case; the first of several alike (RFC 9111, section 4.2.1)."""
    found: dict[str, str] = {}
    for name, quoted, token in _DIRECTIVE.findall(headers.get("cache-control", "")):
        found.setdefault(name.lower(), quoted or token)
    return found


def _lifetime(headers: Mapping[str, str], directives: Mapping[str, str], clock: float) -> float:
    """Seconds of freshness at its origin (RFC 9111, section 4.2.1)."""
    if "no-cache" in directives:
        return 0
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name])
    return _date(headers, "expires", 0) - _date(headers, "date", clock) if "expires" in headers else 0


def _seconds(text: str | None) -> int:
    """Delta-seconds; 0 where there are none, or none that can be read."""
    return min(int(text), _FOREVER) if text and text.isascii() and text.isdecimal() else 0


def _date(headers: Mapping[str, str], name: str, default: float) -> float:
    """A date in seconds since 1970; the default where there is none that can be read."""
    try:
        date = parsedate_to_datetime(headers[name])
    except (KeyError, ValueError, OverflowError):
        return default
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _sendable(value: str) -> bool:
    """Whether a field that a server sent may be sent back as it is."""
    return bool(value) and value.isascii() and value.isprintable()
