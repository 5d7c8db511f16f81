"""Through a proxy, too, a fetch ends at the address that was checked, and the server is called by its name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.errors import MediaTimeoutError, MediaUnreachableError
from tests.media.fetching import OPEN, certificate, fetching, server_side
from tests.media.site import answer, redirect, serve


class Proxy:
    """Does as CONNECT says, or answers `says`; `heads` are what it was told."""

    def __init__(self, says: bytes | None) -> None:
        self._says = says
        self.heads: list[str] = []
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if self._says is None:
                await self._tunnel(head.split()[1], reader, writer)
            else:
                writer.write(self._says)
                await reader.read()
        writer.close()

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(says: bytes | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(says)
    talks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(proxy.talk(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
        await asyncio.wait_for(asyncio.gather(*talks), 5)


async def test_http_goes_to_the_checked_address_by_connect_and_names_the_host() -> None:
    async with serve({"/": redirect("/b"), "/b": answer(b"data")}) as site, proxying() as proxy:
        one = fetching("127.0.0.1", proxy=proxy.url, **OPEN)
        assert await one.get(f"http://media.example:{site.port}/") == b"data"
    told = f"CONNECT 127.0.0.1:{site.port} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n"
    assert proxy.heads == [told, told]
    assert all(f"Host: media.example:{site.port}\r\n".encode() in head for head in site.requests)


async def test_https_is_checked_by_the_name_of_the_url_although_the_proxy_is_told_an_address(tmp_path: Path) -> None:
    names: list[str | None] = []
    file = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=file)
    async with serve({"/": answer(b"data")}, tls=server_side(file, names)) as site, proxying() as proxy:
        one = fetching("127.0.0.1", tls=trust, proxy=proxy.url, **OPEN)
        assert await one.get(f"https://media.example:{site.port}/") == b"data"
        assert type(await one.fault_of(f"https://other.example:{site.port}/")) is MediaUnreachableError
    assert [head.split()[1] for head in proxy.heads] == [f"127.0.0.1:{site.port}"] * 2
    assert names == ["media.example", "other.example"]
    assert len(site.requests) == 1


async def test_what_is_refused_is_not_asked_of_the_proxy() -> None:
    async with proxying() as proxy:
        one = fetching("10.0.0.1", proxy=proxy.url, **OPEN)
        assert "public" in (await one.fault_of("http://media.example/")).message
    assert proxy.heads == []


async def test_the_next_address_is_asked_for_when_the_proxy_does_not_reach_one() -> None:
    async with proxying(b"HTTP/1.1 503 Not there\r\n\r\n") as proxy:
        one = fetching("127.0.0.2 127.0.0.3", proxy=proxy.url, **OPEN)
        assert "reached" in (await one.fault_of("http://media.example/")).message
    assert [head.split()[1] for head in proxy.heads] == ["127.0.0.2:80", "127.0.0.3:80"]


async def test_an_ipv6_address_is_told_in_brackets() -> None:
    async with proxying(b"HTTP/1.1 403 No\r\n\r\n") as proxy:
        await fetching("2606:4700::1", proxy=proxy.url).fault_of("https://media.example/")
    assert [head.split()[1] for head in proxy.heads] == ["[2606:4700::1]:443"]


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 407 Who are you\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + answer(b"what the proxy, or who is before TLS, slips in"),
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000,
    ],
)
async def test_a_proxy_that_misbehaves_is_an_error(says: bytes) -> None:
    async with proxying(says) as proxy:
        fault = await fetching("127.0.0.1", proxy=proxy.url, **OPEN).fault_of("http://media.example/")
        assert type(fault) is MediaUnreachableError
        assert "reached" in fault.message


async def test_a_proxy_that_says_nothing_counts_as_time_to_the_first_byte() -> None:
    async with proxying(b"") as proxy:
        one = fetching("127.0.0.1", proxy=proxy.url, first_byte_seconds=0.2, **OPEN)
        assert type(await one.fault_of("http://media.example/")) is MediaTimeoutError


async def test_a_proxy_that_is_not_there_is_told_to_the_operator_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with proxying() as proxy:
        pass
    fault = await fetching("127.0.0.1", proxy=proxy.url, **OPEN).fault_of("http://media.example/")
    assert "proxy" not in fault.message
    assert "(media.proxy)" in caplog.text


async def test_the_environments_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxying() as proxy, serve({"/": answer(b"data")}) as site:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await fetching(**OPEN).get(f"http://127.0.0.1:{site.port}/") == b"data"
    assert proxy.heads == []
