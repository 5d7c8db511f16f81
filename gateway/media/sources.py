"""Reads what a media part points at: embedded base64, a web address, a local file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gateway.errors import MediaError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Base64 inside the request; `url` is the data URL that it came in, where the engine can read that as it is."""

    base64: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Remote:
    """An http or https URL, not yet checked."""

    url: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A path as the client wrote it, not yet checked."""

    path: str


Source = Embedded | Remote | LocalFile


def parse(text: str) -> Source:
    """The source that a URL or a plain path names.

    Raises MediaError for a scheme that is not http, https, data or file, and for a data URL without base64.
    """
    if not text:
        raise MediaError("the URL is empty")
    match = _SCHEME.match(text)
    scheme = match.group(1).lower() if match else ""
    if scheme == "data":
        return _embedded(text)
    if scheme in ("http", "https"):
        return Remote(text)
    if scheme == "file":
        return LocalFile(_file_path(text))
    if scheme:
        raise MediaError(f"{scheme[:16]}: URLs are not supported; use https:, http:, data: or file:")
    return LocalFile(text)


def _embedded(url: str) -> Embedded:
    header, comma, payload = url[len("data:") :].partition(",")
    parameters = header.split(";")[1:]
    if not comma or not parameters or parameters[-1].strip().lower() != "base64":
        raise MediaError("the data URL must be base64: data:<media type>;base64,<data>")
    return Embedded(payload, url if parameters[-1] == "base64" else None)


def _file_path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise MediaError("the file: URL is malformed") from None
    if parts.netloc not in ("", "localhost"):
        raise MediaError("a file: URL must not name a host: file:///path")
    return unquote(parts.path)
