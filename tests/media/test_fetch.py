"""Fetching reaches public hosts and nothing inside, whatever a URL, a DNS answer or a redirect says."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, MediaError, MediaTimeoutError, MediaTooLargeError, MediaUnreachableError
from gateway.media.addresses import Address
from gateway.media.fetch import Fetcher
from gateway.settings import MediaSettings
from tests.media.site import Pages, Site, answer, redirect, serve

OPEN: dict[str, Any] = {"allowed_networks": ["127.0.0.0/8"]}


#: Trusts nobody. Loading the public authorities anew for each fetcher would take most of the time here.
DISTRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def fetcher(*answers: str, tls: ssl.SSLContext = DISTRUST, **settings: Any) -> Fetcher:
    """A fetcher; with `answers`, DNS gives them one after the other, each a list separated by spaces."""
    parsed = MediaSettings.model_validate(settings)
    return Fetcher(parsed, resolver(*answers), tls) if answers else Fetcher(parsed, tls=tls)


def resolver(*answers: str) -> Callable[[str, int], Awaitable[Sequence[Address]]]:
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [ip_address(text) for text in (left.pop(0) if len(left) > 1 else left[0]).split()]

    return resolve


async def fetched(pages: Pages, path: str = "/", **settings: Any) -> tuple[bytes, Site]:
    async with serve(pages) as site:
        return await fetcher(**OPEN, **settings).fetch(f"http://127.0.0.1:{site.port}{path}"), site


async def fault_of(pages: Pages, path: str = "/", **settings: Any) -> GatewayError:
    with pytest.raises(GatewayError) as fault:
        await fetched(pages, path, **settings)
    return fault.value


async def test_a_body_is_fetched_and_nothing_is_sent_that_is_not_asked_for() -> None:
    body, site = await fetched({"/a?b=c": answer(b"data")}, "/a?b=c#fragment")
    assert body == b"data"
    head, *fields = site.requests[0].decode().split("\r\n")
    assert head == "GET /a?b=c HTTP/1.1"
    assert {field.split(":")[0].lower() for field in fields if field} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }


async def test_a_body_without_a_length_is_fetched_to_its_end() -> None:
    assert (await fetched({"/": b"HTTP/1.1 200 OK\r\n\r\ndata"}))[0] == b"data"


async def test_the_servers_name_goes_to_the_checked_address() -> None:
    async with serve({"/": answer(b"data")}) as site:
        body = await fetcher("127.0.0.1", **OPEN).fetch(f"http://media.example:{site.port}/")
    assert body == b"data"
    assert f"host: media.example:{site.port}".encode() in site.requests[0].lower()


async def test_the_next_address_is_tried_when_one_does_not_connect() -> None:
    async with serve({"/": answer(b"data")}) as site:
        body = await fetcher("127.0.0.2 127.0.0.1", **OPEN).fetch(f"http://media.example:{site.port}/")
    assert body == b"data"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_an_ipv6_address_is_connected_to() -> None:
    async with serve({"/": answer(b"data")}, "::1") as site:
        one = fetcher(allowed_networks=["::1/128"])
        assert await one.fetch(f"http://[::1]:{site.port}/") == b"data"
        with pytest.raises(MediaUnreachableError):
            await fetcher().fetch(f"http://[::1]:{site.port}/")
    assert site.connections == 1


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_redirects_are_followed(status: str) -> None:
    assert (await fetched({"/": redirect("/b", status), "/b": answer(b"data")}))[0] == b"data"


async def test_cookies_are_not_kept() -> None:
    _, site = await fetched({"/": answer(b"", "302 Found", location="/b", set_cookie="a=1"), "/b": answer(b"")})
    assert b"cookie" not in site.requests[1].lower()


@pytest.mark.parametrize(
    ("pages", "error", "text"),
    [
        ({}, MediaUnreachableError, "404"),
        ({"/": answer(b"", "500 Oops")}, MediaUnreachableError, "500"),
        ({"/": answer(b"", "204 Empty")}, MediaUnreachableError, "204"),
        ({"/": redirect("/")}, MediaUnreachableError, "more than 3 redirects"),
        ({"/": redirect("ftp://example.com/")}, MediaUnreachableError, "http and https"),
        ({"/": redirect("file:///etc/passwd")}, MediaUnreachableError, "http and https"),
        ({"/": redirect("data:image/png;base64,QQ==")}, MediaUnreachableError, "http and https"),
        ({"/": redirect("http://user:password@example.com/")}, MediaUnreachableError, "password"),
        ({"/": redirect("http://[::1/")}, MediaUnreachableError, "reached"),
        ({"/": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"}, MediaUnreachableError, "broke off"),
        ({"/": b"not http\r\n\r\n"}, MediaUnreachableError, "broke off"),
        ({"/": b""}, MediaUnreachableError, "broke off"),
        ({"/": answer(b"x" * 1001)}, MediaTooLargeError, "1000 bytes"),
        ({"/": b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n"}, MediaTooLargeError, "1000 bytes"),
        ({"/": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000}, MediaTooLargeError, "1000 bytes"),
        ({"/": answer(gzip.compress(b"\0" * 10**6)[:900], content_encoding="gzip")}, MediaUnreachableError, "compress"),
        ({"/": None}, MediaTimeoutError, "0.3 seconds"),
    ],
)
async def test_a_server_that_misbehaves_is_an_error_of_its_kind(
    pages: Pages, error: type[GatewayError], text: str
) -> None:
    fault = await fault_of(pages, max_bytes=1000, fetch_seconds=0.3)
    assert type(fault) is error
    assert text in fault.message


async def test_a_server_that_nobody_listens_for_is_unreachable() -> None:
    async with serve({}) as site:
        pass
    with pytest.raises(MediaUnreachableError):
        await fetcher(**OPEN).fetch(f"http://127.0.0.1:{site.port}/")


async def test_a_slow_drip_ends_at_the_deadline() -> None:
    """Each byte is in time, the whole is not."""
    async with serve({"/": answer(b"x" * 100)}, pause=0.05) as site:
        started = time.monotonic()
        with pytest.raises(MediaTimeoutError):
            await fetcher(fetch_seconds=0.3, **OPEN).fetch(f"http://127.0.0.1:{site.port}/")
        assert time.monotonic() - started < 2


async def test_a_cancelled_fetch_closes_its_connection() -> None:
    async with serve({"/": None}) as site:
        task = asyncio.create_task(fetcher(**OPEN).fetch(f"http://127.0.0.1:{site.port}/"))
        while not site.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(site.gone.wait(), 2)


async def test_no_more_fetches_run_at_once_than_configured() -> None:
    async with serve({"/": None}) as site:
        one = fetcher(max_fetches=1, **OPEN)
        first, second = (asyncio.create_task(one.fetch(f"http://127.0.0.1:{site.port}/")) for _ in range(2))
        await asyncio.sleep(0.2)
        assert site.connections == 1
        first.cancel()
        while site.connections < 2:
            await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)


async def test_fetching_can_be_switched_off() -> None:
    with pytest.raises(MediaUnreachableError, match=r"media\.fetch"):
        await fetcher(fetch=False, **OPEN).fetch("http://127.0.0.1/")


# What must never connect. `{port}` is that of a server on 127.0.0.1 which counts connections.
HOSTILE = [
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0X7F000001:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://00000177.0.0.01:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.255.255.254:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com#@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#.example.com/",
    "http://127.0.0.1:{port}?.example.com/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://127。0。0。1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://\t127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: example.com",
    "http://127.0.0.1\n:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://[fd00:ec2::254]:{port}/",
    "http://metadata.google.internal:{port}/",
    "http://:{port}/",
    "http://",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url_connects_to_nothing_inside(url: str) -> None:
    async with serve({}) as canary:
        with pytest.raises((MediaError, MediaTimeoutError)):
            await fetcher(fetch_seconds=1).fetch(url.format(port=canary.port))
    assert canary.connections == 0


@pytest.mark.parametrize("url", [url for url in HOSTILE if url.startswith("http://")])
async def test_a_redirect_to_a_hostile_url_connects_to_nothing_inside(url: str) -> None:
    """The first hop is allowed by its address, 127.0.0.2; the canary's is not."""
    async with serve({}) as canary:
        location = url.format(port=canary.port).replace("\r", "%0d").replace("\n", "%0a")
        pages = {"/": redirect(location).replace(location.encode("latin-1", "replace"), location.encode())}
        if not location.isascii():
            pages = {"/": b"HTTP/1.1 302 Found\r\nlocation: " + location.encode() + b"\r\ncontent-length: 0\r\n\r\n"}
        async with serve(pages, "127.0.0.2") as site:
            with pytest.raises((MediaError, MediaTimeoutError)):
                await fetcher(allowed_networks=["127.0.0.2/32"], fetch_seconds=1).fetch(
                    f"http://127.0.0.2:{site.port}/"
                )
        assert site.connections >= 1
    assert canary.connections == 0


@pytest.mark.parametrize(
    "answers",
    ["127.0.0.1", "8.8.8.8 127.0.0.1", "127.0.0.1 8.8.8.8", "::1", "2606:4700::1 ::1", "::ffff:127.0.0.1", "10.0.0.1"],
)
async def test_one_address_inside_refuses_the_whole_name(answers: str) -> None:
    async with serve({}) as canary:
        with pytest.raises(MediaUnreachableError):
            await fetcher(answers).fetch(f"http://media.example:{canary.port}/")
    assert canary.connections == 0


async def test_a_dns_answer_that_changes_after_the_check_changes_nothing() -> None:
    """The checked address is 127.0.0.2; whoever resolves once more gets the canary's, 127.0.0.1."""
    async with serve({}) as canary, serve({"/": answer(b"data")}, "127.0.0.2") as site:
        one = fetcher("127.0.0.2", "127.0.0.1", allowed_networks=["127.0.0.2/32"])
        assert await one.fetch(f"http://media.example:{site.port}/") == b"data"
        with pytest.raises(MediaUnreachableError):
            await one.fetch(f"http://media.example:{canary.port}/")
    assert canary.connections == 0


async def test_a_redirect_to_the_same_name_is_resolved_and_checked_anew() -> None:
    async with serve({}) as canary:
        location = f"http://media.example:{canary.port}/"
        async with serve({"/": redirect(location)}, "127.0.0.2") as site:
            one = fetcher("127.0.0.2", "127.0.0.1", allowed_networks=["127.0.0.2/32"])
            with pytest.raises(MediaUnreachableError):
                await one.fetch(f"http://media.example:{site.port}/")
    assert canary.connections == 0


async def test_errors_do_not_tell_what_is_inside() -> None:
    async def message(url: str) -> str:
        with pytest.raises(MediaUnreachableError) as fault:
            await fetcher().fetch(url)
        return fault.value.message

    async with serve({}) as canary:
        urls = [f"http://127.0.0.1:{canary.port}/", "http://127.0.0.1:1/", "http://10.0.0.1/", "http://a.invalid/"]
        assert len({await message(url) for url in urls}) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for media.example with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    file = folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=media.example", "-addext", "subjectAltName=DNS:media.example"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return file


async def test_tls_checks_the_name_of_the_url_although_the_address_is_pinned(certificate: Path) -> None:
    names: list[str | None] = []
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    server_side.sni_callback = lambda _socket, name, _context: names.append(name)
    client_side = ssl.create_default_context(cafile=certificate)
    async with serve({"/": answer(b"data")}, tls=server_side) as site:
        one = fetcher("127.0.0.1", tls=client_side, **OPEN)
        assert await one.fetch(f"https://media.example:{site.port}/") == b"data"
        with pytest.raises(MediaUnreachableError):
            await one.fetch(f"https://other.example:{site.port}/")
        with pytest.raises(MediaUnreachableError):
            await fetcher("127.0.0.1", **OPEN).fetch(f"https://media.example:{site.port}/")
    assert names == ["media.example", "other.example", "media.example"]
    assert len(site.requests) == 1
