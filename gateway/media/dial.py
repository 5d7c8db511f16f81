"""Opens connections to the hosts of URLs, to checked addresses only: the place where nothing inside is connected to.

A name is resolved once, every address of it is checked, and the socket is connected to a checked address, by its
number. So a second DNS answer changes nothing. TLS is spoken with the name of the URL.

Through a proxy, too, the socket is led by number: by CONNECT, for http as for https. Had the proxy been given the
URL itself, as it usually is for http, it would resolve the name once more, or, given a URL with the address in it,
put that address into the Host header (RFC 9112, section 3.2.2). So a proxy has to allow CONNECT to port 80.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import certifi

from gateway.errors import MediaUnreachableError
from gateway.media.addresses import Address, is_listed, may_fetch
from gateway.media.exchange import BROKE_OFF
from gateway.media.urls import Origin
from gateway.settings import MediaSettings

logger = logging.getLogger(__name__)

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

#: Seconds to connect to one address before the next is tried, and how many are tried.
_CONNECT_SECONDS = 4.0
_TRIES = 4

#: Bytes of a proxy's answer.
_PROXY_HEAD = 16 * 1024
_ESTABLISHED = re.compile(rb"HTTP/1\.[01] 2\d\d[ \r]")

#: One text for a name that does not exist and for one that is inside: it must not tell which names exist there.
_NOT_PUBLIC = "the host does not resolve to public addresses (see media.allowed_networks and media.denied_networks)"


class Dialer:
    """Connects as `settings` allow; `resolver` and `tls` are for tests and special trust."""

    def __init__(
        self, settings: MediaSettings, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolver or self._look_up
        self._tls = tls or _public_trust()
        # Threads of their own: a look-up cannot be cancelled, and slow names must not hold up what else has threads.
        self._threads = ThreadPoolExecutor(settings.max_fetches, thread_name_prefix="resolve")

    @asynccontextmanager
    async def connect(self, origin: Origin) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that is closed after the block.

        Raises MediaUnreachableError where the host is refused or not reached.
        """
        reader, writer = await self._streams(origin, await self._addresses(origin))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    def close(self) -> None:
        """Lets go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _streams(
        self, origin: Origin, addresses: Sequence[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            connected = await _first(self._tunnel if self._settings.proxy else _connect, addresses, origin.port)
            if origin.https:
                return await asyncio.open_connection(sock=connected, ssl=self._tls, server_hostname=origin.host)
            return await asyncio.open_connection(sock=connected)
        except (OSError, ValueError) as fault:
            raise MediaUnreachableError(BROKE_OFF) from fault

    # Whereto

    async def _addresses(self, origin: Origin) -> Sequence[Address]:
        """The checked addresses of a host, in the resolver's order."""
        self._check_name(origin.host)
        try:
            addresses = await self._resolve(origin.host, origin.port)
        except (OSError, ValueError):
            raise MediaUnreachableError(_NOT_PUBLIC) from None
        allowed, denied = self._settings.allowed_networks, self._settings.denied_networks
        if not addresses or not all(may_fetch(address, allowed, denied) for address in addresses):
            raise MediaUnreachableError(_NOT_PUBLIC)
        return list(dict.fromkeys(addresses))[:_TRIES]

    def _check_name(self, host: str) -> None:
        if is_listed(host, self._settings.denied_hosts):
            raise MediaUnreachableError("nothing is fetched from this host (media.denied_hosts)")
        allowed = self._settings.allowed_hosts
        if allowed and not is_listed(host, allowed):
            raise MediaUnreachableError("the host is not one that may be fetched from (media.allowed_hosts)")

    async def _look_up(self, host: str, port: int) -> Sequence[Address]:
        """All addresses of a name by the system's resolver, which also reads numbers in octal, hex and decimal."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _system_look_up, host, port)

    # How

    async def _tunnel(self, address: Address, port: int) -> socket.socket:
        """A socket to the proxy that has become one to `address`."""
        proxy = urlsplit(self._settings.proxy or "")
        host, proxy_port = proxy.hostname or "", proxy.port or 80
        try:
            tunnel = await _first(_connect, await self._look_up(host, proxy_port), proxy_port)
        except OSError as fault:
            logger.warning("the proxy for fetches cannot be reached: %s (media.proxy)", fault)
            raise
        try:
            await _ask_for_tunnel(tunnel, address, port)
        except BaseException:
            tunnel.close()
            raise
        return tunnel


def _public_trust() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _system_look_up(host: str, port: int) -> Sequence[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in found]


async def _first(
    connect: Callable[[Address, int], Awaitable[socket.socket]], addresses: Sequence[Address], port: int
) -> socket.socket:
    """A socket to the first address that can be connected to.

    Raises OSError, that of the last.
    """
    *others, last = addresses
    for address in others:
        with suppress(OSError):
            return await connect(address, port)
    return await connect(last, port)


async def _connect(address: Address, port: int) -> socket.socket:
    """Raises OSError, TimeoutError included."""
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(0)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(connected, (str(address), port))
    except BaseException:
        connected.close()
        raise
    return connected


async def _ask_for_tunnel(tunnel: socket.socket, address: Address, port: int) -> None:
    """Raises OSError where the proxy does not connect, or says anything beyond that it did.

    Bytes after its answer would be taken for the server's, from before TLS.
    """
    loop = asyncio.get_running_loop()
    target = f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"
    head = bytearray()
    async with asyncio.timeout(_CONNECT_SECONDS):
        await loop.sock_sendall(tunnel, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        while b"\r\n\r\n" not in head:
            data = await loop.sock_recv(tunnel, 4096)
            head += data
            if not data or len(head) > _PROXY_HEAD:
                raise ConnectionError("the proxy broke off")
    if not _ESTABLISHED.match(head) or not head.endswith(b"\r\n\r\n"):
        raise ConnectionError("the proxy does not connect")
