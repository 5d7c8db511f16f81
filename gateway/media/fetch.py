"""Fetches media over http(s): the gateway's only calls to hosts that clients name.

A name is resolved once, every address of it is checked, and the connection goes to a checked address with the
name's own Host and TLS name, so that a second DNS answer changes nothing. Redirects are followed by hand and checked
the same way. Connections are never reused (another host may share the address), and no proxy from the environment,
cookie or credential is used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import httpx

from gateway.errors import MediaError, MediaTimeoutError, MediaTooLargeError, MediaUnreachableError
from gateway.media.addresses import Address, may_fetch
from gateway.settings import MediaSettings

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Seconds to connect to one address before the next is tried, and how many are tried.
_CONNECT_SECONDS = 5.0
_TRIES = 4

#: One text for a name that does not exist and for one that is inside: it must not tell which names exist there.
_NOT_PUBLIC = "the host does not resolve to public addresses (see media.allowed_networks)"


async def resolve(host: str, port: int) -> Sequence[Address]:
    """All addresses of a name by the system's resolver, which also reads numbers in octal, hex and decimal.

    Raises OSError where there is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in found]


class Fetcher:
    """Fetches within the limits of `settings`; `resolver` and `tls` are for tests and special trust."""

    def __init__(
        self, settings: MediaSettings, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolver
        self._slots = asyncio.Semaphore(settings.max_fetches)
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls or httpx.create_ssl_context(trust_env=False),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def fetch(self, url: str) -> bytes:
        """The body behind `url`.

        Raises MediaUnreachableError where the address is refused or the server does not give it,
        MediaTooLargeError over `max_bytes`, MediaTimeoutError over `fetch_seconds`, MediaError for a bad URL.
        """
        if not self._settings.fetch:
            raise MediaUnreachableError("this gateway fetches no URLs (media.fetch is off); send the data itself")
        seconds = self._settings.fetch_seconds
        try:
            async with asyncio.timeout(seconds), self._slots:
                return await self._follow(_parse(url))
        except TimeoutError:
            raise MediaTimeoutError(f"fetching it took longer than {seconds:g} seconds (media.fetch_seconds)") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as fault:
            raise MediaUnreachableError("the server could not be reached, or broke off") from fault

    async def aclose(self) -> None:
        """Closes what is open."""
        await self._transport.aclose()

    async def _follow(self, url: httpx.URL) -> bytes:
        for _ in range(self._settings.max_redirects + 1):
            async with self._get(url) as response:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or location is None:
                    return await self._read(response)
            url = _checked(url.join(location))
        raise MediaUnreachableError(f"more than {self._settings.max_redirects} redirects (media.max_redirects)")

    @asynccontextmanager
    async def _get(self, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        addresses = await self._addresses(url)
        response = await self._connect(url, addresses)
        try:
            yield response
        finally:
            await response.aclose()

    async def _addresses(self, url: httpx.URL) -> Sequence[Address]:
        """The checked addresses of the URL's host, in the resolver's order."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(_host(url), port)
        except (OSError, ValueError):
            raise MediaUnreachableError(_NOT_PUBLIC) from None
        allowed = self._settings.allowed_networks
        if not addresses or not all(may_fetch(address, allowed) for address in addresses):
            raise MediaUnreachableError(_NOT_PUBLIC)
        return list(dict.fromkeys(addresses))[:_TRIES]

    async def _connect(self, url: httpx.URL, addresses: Sequence[Address]) -> httpx.Response:
        *first, last = addresses
        for address in first:
            try:
                return await self._transport.handle_async_request(self._request(url, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._transport.handle_async_request(self._request(url, last))

    def _request(self, url: httpx.URL, address: Address) -> httpx.Request:
        """A GET to `address` which names the URL's own host, to the server and to TLS."""
        timeout = httpx.Timeout(self._settings.fetch_seconds, connect=_CONNECT_SECONDS)
        return httpx.Request(
            "GET",
            url.copy_with(host=str(address)),
            headers={
                b"host": url.netloc,
                b"user-agent": b"gemma-gateway",
                b"accept": b"*/*",
                b"accept-encoding": b"identity",
                b"connection": b"close",
            },
            extensions={"sni_hostname": _host(url), "timeout": timeout.as_dict()},
        )

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            raise MediaUnreachableError(f"the server answered {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise MediaUnreachableError("the server compressed the answer although asked not to")
        length = response.headers.get("content-length", "")
        self._check_length(int(length) if length.isdecimal() else 0)
        body = bytearray()
        async for chunk in response.aiter_raw():
            self._check_length(len(body) + len(chunk))
            body += chunk
        return bytes(body)

    def _check_length(self, length: int) -> None:
        limit = self._settings.max_bytes
        if length > limit:
            raise MediaTooLargeError(f"it is over the limit of {limit} bytes (media.max_bytes)")


def _parse(url: str) -> httpx.URL:
    try:
        return _checked(httpx.URL(url))
    except (httpx.InvalidURL, ValueError):
        raise MediaError("the URL is malformed") from None


def _checked(url: httpx.URL) -> httpx.URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise MediaUnreachableError("only http and https URLs are fetched")
    if url.userinfo:
        raise MediaUnreachableError("URLs with a user name or password are not fetched")
    return url


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")
