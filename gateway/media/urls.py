"""Reads http and https URLs into where to connect and what to ask for there. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

import httpx

from gateway.errors import MediaError, MediaUnreachableError

#: Letters, digits, hyphens, and the underscore that names of buckets have. An IPv4 address in any spelling fits, too.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_LONGEST_NAME = 253

#: Characters. RFC 9110, section 4.1, asks for 8000 at least; keys of caches they are, too.
_LONGEST_URL = 8192


@dataclass(frozen=True, slots=True)
class Origin:
    """What is connected to. `host` is a name or an address in ASCII and lower case, without brackets or a final dot."""

    https: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Url:
    """A URL that may be asked for, as far as its text tells.

    `authority` is the Host header, `target` the request's path and query; the fragment is left out.
    """

    origin: Origin
    authority: str
    target: str

    def __str__(self) -> str:
        return f"{'https' if self.origin.https else 'http'}://{self.authority}{self.target}"

    def join(self, location: str) -> Url:
        """Where a redirect leads.

        Raises MediaUnreachableError.
        """
        try:
            return _checked(httpx.URL(str(self)).join(location))
        except (httpx.InvalidURL, ValueError):
            raise MediaUnreachableError("the server redirects to a malformed URL") from None


def parse(text: str) -> Url:
    """Reads a URL that a client wrote.

    Raises MediaError where it is malformed, MediaUnreachableError where it is none that is ever fetched.
    """
    try:
        return _checked(httpx.URL(text))
    except (httpx.InvalidURL, ValueError):
        raise MediaError("the URL is malformed") from None


def _checked(url: httpx.URL) -> Url:
    if url.scheme not in ("http", "https") or not url.host:
        raise MediaUnreachableError("only http and https URLs are fetched")
    if url.userinfo:
        raise MediaUnreachableError("URLs with a user name or password are not fetched")
    if len(url.raw_path) > _LONGEST_URL:
        raise MediaUnreachableError(f"URLs of more than {_LONGEST_URL} characters are not fetched")
    https = url.scheme == "https"
    host = _host(url.raw_host.decode("ascii"))
    shown = f"[{host}]" if ":" in host else host
    origin = Origin(https, host, _port(url.port, https))
    authority = shown if url.port is None else f"{shown}:{url.port}"
    return Url(origin, authority, url.raw_path.decode("ascii"))


def _port(port: int | None, https: bool) -> int:
    if port is None:
        return 443 if https else 80
    if not 0 < port < 65536:
        raise ValueError("not a port")
    return port


def _host(raw: str) -> str:
    """The host's one spelling: `name.` is the same as `name`, to rules, to TLS and to caches.

    Raises ValueError for what is neither a name nor an address, zone identifiers included.
    """
    if ":" in raw:
        if "%" in raw:
            raise ValueError("a zone means nothing to another machine")
        return str(ip_address(raw))
    host = raw.removesuffix(".")
    if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
        raise ValueError("not a host name")
    return host
