"""A body is fetched from where its URL says, within its limits, and every way a server can fail is told."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.errors import (
    GatewayError,
    MediaError,
    MediaTimeoutError,
    MediaTooLargeError,
    MediaUnreachableError,
    OverloadedError,
)
from gateway.settings import Modality
from tests.media.fetching import OPEN, certificate, fetching, opened, server_side
from tests.media.site import Page, Pages, Site, answer, redirect, serve

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def fetched(pages: Pages, path: str = "/", **settings: Any) -> tuple[bytes, Site]:
    async with opened(pages, **settings) as (one, site, base):
        return await one.get(base + path), site


async def test_a_body_is_fetched_and_nothing_is_sent_that_is_not_asked_for() -> None:
    body, site = await fetched({"/a?b=c": answer(b"data")}, "/a?b=c#fragment")
    assert body == b"data"
    head, *fields = site.requests[0].decode().split("\r\n")
    assert head == "GET /a?b=c HTTP/1.1"
    sent = {field.split(":")[0].lower() for field in fields if field}
    assert sent == {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    "page",
    [
        answer(b"data"),
        HEAD + b"\r\ndata",
        b"HTTP/1.0 200 OK\r\n\r\ndata",
        b"HTTP/1.1 200\r\ncontent-length:4\r\n\r\ndata",
        CHUNKED + b"1\r\nd\r\n3;some=extension\r\nata\r\n0\r\ntrailer: x\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlocation: /hint\r\ncontent-encoding: gzip\r\n\r\n" + answer(b"data"),
        answer(b"data") + b"more than was promised",
        answer(b"data", connection="close") + b"more than was promised",
        answer(b"data") + answer(b"another answer"),
        answer(b"data", content_encoding="Identity"),
    ],
)
async def test_a_body_is_read_to_its_end_and_no_further(page: bytes) -> None:
    assert (await fetched({"/": page}))[0] == b"data"


async def test_a_large_body_comes_whole() -> None:
    data = bytes(range(256)) * 40_000
    assert (await fetched({"/": answer(data)}))[0] == data


def test_it_works_on_the_loop_that_production_runs(tmp_path: Path) -> None:
    file = certificate(tmp_path)

    async def through_tls() -> bytes:
        async with serve({"/": answer(b"data" * 10**5)}, tls=server_side(file, [])) as site:
            one = fetching("127.0.0.1", tls=ssl.create_default_context(cafile=file), **OPEN)
            return await one.get(f"https://media.example:{site.port}/")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(through_tls()) == b"data" * 10**5
        assert runner.run(fetched({"/": answer(b"data")}))[0] == b"data"


async def test_the_servers_name_goes_to_the_checked_address() -> None:
    async with serve({"/": answer(b"data")}) as site:
        for host in ("media.example", "MEDIA.example.", "media\u3002example"):
            assert await fetching("127.0.0.1", **OPEN).get(f"http://{host}:{site.port}/") == b"data"
    assert [f"Host: media.example:{site.port}\r\n".encode() in head for head in site.requests] == [True] * 3


async def test_the_next_address_is_tried_when_one_does_not_connect() -> None:
    async with serve({"/": answer(b"data")}) as site:
        body = await fetching("127.0.0.2 127.0.0.1", **OPEN).get(f"http://media.example:{site.port}/")
    assert body == b"data"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_an_ipv6_address_is_connected_to() -> None:
    async with serve({"/": answer(b"data")}, "::1") as site:
        one = fetching(allowed_networks=["::1/128"])
        assert await one.get(f"http://[0:0::1]:{site.port}/") == b"data"
        assert type(await fetching().fault_of(f"http://[::1]:{site.port}/")) is MediaUnreachableError
    assert site.connections == 1
    assert f"Host: [::1]:{site.port}\r\n".encode() in site.requests[0]


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_redirects_are_followed(status: str) -> None:
    pages = {"/a/": redirect("../b?c#d", status), "/b?c": redirect("//127.0.0.1:{}/e"), "/e": answer(b"data")}
    async with opened({**pages, "/b?c": lambda head: redirect(f"//{host_of(head)}/e", status)}) as (one, site, base):
        assert await one.get(base + "/a/") == b"data"
        assert site.paths() == ["/a/", "/b?c", "/e"]


def host_of(head: bytes) -> str:
    return head.decode().partition("Host: ")[2].partition("\r\n")[0]


async def test_cookies_are_not_kept() -> None:
    _, site = await fetched({"/": answer(b"", "302 Found", location="/b", set_cookie="a=1"), "/b": answer(b"")})
    assert b"cookie" not in site.requests[1].lower()


ZEROS = gzip.compress(b"\0" * 10**6)

#: What a server does, the error, words of its message. The limit is 1000 bytes.
MISBEHAVIOURS: list[tuple[Page, type[GatewayError], str]] = [
    (answer(b"", "404 Not Found"), MediaUnreachableError, "404"),
    (answer(b"", "500 Oops"), MediaUnreachableError, "500"),
    (b"HTTP/1.1 204 Empty\r\n\r\n", MediaUnreachableError, "204"),
    (answer(b"part", "206 Partial Content"), MediaUnreachableError, "206"),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", MediaUnreachableError, "304"),
    (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", MediaUnreachableError, "302"),
    (redirect("/"), MediaUnreachableError, "more than 3 redirects"),
    (redirect("http://[::1/"), MediaUnreachableError, "malformed"),
    # Ends too early.
    (b"", MediaUnreachableError, "broke off"),
    (b"HTTP/1.1 200 OK\r\ncontent-le", MediaUnreachableError, "broke off"),
    (HEAD + b"content-length: 9\r\n\r\nshort", MediaUnreachableError, "broke off"),
    (CHUNKED + b"9\r\nshort", MediaUnreachableError, "broke off"),
    (CHUNKED + b"4\r\ndata\r\n", MediaUnreachableError, "broke off"),
    # Is not HTTP.
    (b"\x89PNG straight away, as HTTP/0.9 had it", MediaUnreachableError, "broke off"),
    (b"not http\r\n\r\n", MediaUnreachableError, "broke off"),
    (b"HTTP/2 200\r\n\r\n", MediaUnreachableError, "broke off"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", MediaUnreachableError, "broke off"),
    (b"\0" * 1000, MediaUnreachableError, "broke off"),
    (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx", MediaUnreachableError, "broke off"),
    # Lies about its length, or lets it be read in two ways.
    (HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\ndata", MediaUnreachableError, "broke off"),
    (HEAD + b"content-length: -4\r\n\r\ndata", MediaUnreachableError, "broke off"),
    (HEAD + b"content-length: " + b"9" * 30 + b"\r\n\r\ndata", MediaUnreachableError, "broke off"),
    (CHUNKED[:-2] + b"content-length: 4\r\n\r\n4\r\ndata\r\n0\r\n\r\n", MediaUnreachableError, "broke off"),
    (CHUNKED + b"ffffffffffffffffff\r\ndata", MediaUnreachableError, "broke off"),
    (CHUNKED + b"-4\r\ndata\r\n0\r\n\r\n", MediaUnreachableError, "broke off"),
    # Sends too much.
    (answer(b"x" * 1001), MediaTooLargeError, "1000 bytes (media.max_bytes)"),
    (HEAD + b"content-length: 9999999999\r\n\r\n", MediaTooLargeError, "1000 bytes"),
    (HEAD + b"\r\n" + b"x" * 200_000, MediaTooLargeError, "1000 bytes"),
    (itertools.chain([HEAD + b"\r\n"], itertools.repeat(b"x" * 65536)), MediaTooLargeError, "1000 bytes"),
    (itertools.chain([CHUNKED], itertools.repeat(b"fff\r\n" + b"x" * 4095 + b"\r\n")), MediaTooLargeError, "1000"),
    # Sends too much of what is no body.
    (itertools.chain([HEAD], itertools.repeat(b"a: b\r\n" * 1000)), MediaUnreachableError, "more headers"),
    (itertools.chain([HEAD + b"a: "], itertools.repeat(b"b" * 65536)), MediaUnreachableError, "more headers"),
    (itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"b" * 65536)), MediaUnreachableError, "more headers"),
    (itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), MediaUnreachableError, "more headers"),
    (
        itertools.chain([CHUNKED, b"1;"], itertools.repeat(b"extension" * 1000)),
        MediaUnreachableError,
        "more headers",
    ),
    (
        itertools.chain([CHUNKED + b"0\r\n"], itertools.repeat(b"trailer: x\r\n" * 1000)),
        MediaUnreachableError,
        "more headers",
    ),
    # Compresses.
    (answer(ZEROS[:900], content_encoding="gzip"), MediaUnreachableError, "compress"),
    (answer(ZEROS[:900], content_encoding="identity, br"), MediaUnreachableError, "compress"),
    (HEAD + b"transfer-encoding: gzip\r\n\r\n" + ZEROS[:900], MediaUnreachableError, "compress"),
    (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", MediaUnreachableError, "compress"),
]


@pytest.mark.parametrize(("page", "error", "text"), MISBEHAVIOURS)
async def test_a_server_that_misbehaves_is_an_error_of_its_kind(
    page: Page, error: type[GatewayError], text: str
) -> None:
    async with opened({"/": page}, max_bytes=1000) as (one, _, base):
        fault = await one.fault_of(f"{base}/")
        assert type(fault) is error
        assert text in fault.message
        assert one.outcomes() == {fault.code: 1}
        assert one.value("bytes_in_flight") == 0


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher", "data", "ws", "unix", "javascript"])
async def test_a_redirect_to_another_protocol_is_refused(scheme: str) -> None:
    async with opened({"/": redirect(f"{scheme}://127.0.0.1/etc/passwd")}) as (one, _, base):
        assert "only http and https" in (await one.fault_of(f"{base}/")).message


async def test_a_server_that_says_nothing_is_left_in_time() -> None:
    async with opened({"/": None}, first_byte_seconds=0.2) as (one, site, base):
        fault = await one.fault_of(f"{base}/")
        assert type(fault) is MediaTimeoutError
        assert "0.2 seconds (media.first_byte_seconds)" in fault.message
        await asyncio.wait_for(site.gone.wait(), 2)


async def test_a_chunk_of_one_byte_each_is_refused_although_the_body_is_not_large() -> None:
    """It costs the event loop hundreds of times what it carries."""
    pages = {"/": itertools.chain([CHUNKED], itertools.repeat(b"1\r\nx\r\n" * 10_000))}
    async with opened(pages) as (one, _, base):
        assert "more headers and framing than data" in (await one.fault_of(f"{base}/")).message
        assert one.value("fetched_bytes_total", modality="image") < 100_000


async def test_a_server_that_nobody_listens_for_is_unreachable() -> None:
    async with serve({}) as site:
        pass
    assert "reached" in (await fetching(**OPEN).fault_of(f"http://127.0.0.1:{site.port}/")).message


@pytest.mark.parametrize(("size", "setting"), [(30, "first_byte_seconds"), (1000, "fetch_seconds")])
async def test_a_slow_drip_ends_at_a_deadline(size: int, setting: str) -> None:
    """Each byte is in time, the head or the whole is not."""
    one = fetching(first_byte_seconds=0.5, fetch_seconds=0.8, **OPEN)
    pages: Pages = {
        "/30": answer(b"x"),
        "/1000": itertools.chain([answer(b"x" * 1000)[:-1000]], itertools.repeat(b"x", 1000)),
    }
    async with serve(pages, pause=0.02) as site:
        started = time.monotonic()
        fault = await one.fault_of(f"http://127.0.0.1:{site.port}/{size}")
        assert f"(media.{setting})" in fault.message
        assert time.monotonic() - started < 2


async def test_the_time_to_the_first_byte_counts_for_each_hop_and_the_total_for_all() -> None:
    pages: Pages = {"/": [b"", redirect("/b")], "/b": [b"", redirect("/c")], "/c": [b"", answer(b"x")]}
    async with serve(pages, pause=0.3) as site:
        url = f"http://127.0.0.1:{site.port}/"
        assert await fetching(first_byte_seconds=0.8, fetch_seconds=9, **OPEN).get(url) == b"x"
        fault = await fetching(first_byte_seconds=9, fetch_seconds=0.8, **OPEN).fault_of(url)
    assert "0.8 seconds (media.fetch_seconds)" in fault.message


async def test_a_name_that_resolves_slowly_counts_as_time_to_the_first_byte() -> None:
    async def resolve(host: str, port: int) -> Sequence[Any]:
        await asyncio.sleep(9)
        return []

    one = fetching(first_byte_seconds=0.1)
    one.fetcher._dialer._resolve = resolve
    assert type(await one.fault_of("http://media.example/")) is MediaTimeoutError


async def test_a_cancelled_fetch_closes_its_connection() -> None:
    async with opened({"/": None}) as (one, site, base):
        task = asyncio.create_task(one.get(f"{base}/"))
        while not site.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(site.gone.wait(), 2)
        assert one.outcomes() == {"cancelled": 1}


async def test_closing_the_fetcher_cancels_what_is_under_way() -> None:
    async with opened({"/": None}) as (one, site, base):
        task = asyncio.create_task(one.get(f"{base}/"))
        while not site.requests:
            await asyncio.sleep(0.01)
        await one.fetcher.aclose()
        await asyncio.wait_for(site.gone.wait(), 2)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_more_fetches_run_at_once_than_configured_and_waiting_counts_as_time() -> None:
    limits = {"max_fetches": 1, "first_byte_seconds": 9, "fetch_seconds": 0.5}
    async with opened({"/a": None, "/b": None}, **limits) as (one, site, base):
        started = time.monotonic()
        waiting = asyncio.gather(one.fault_of(base + "/a"), one.fault_of(base + "/b"))
        await asyncio.sleep(0.15)
        assert site.paths() == ["/a"]
        assert [type(fault) for fault in await waiting] == [MediaTimeoutError] * 2
        assert time.monotonic() - started < 0.95


async def test_the_limit_is_told_by_the_setting_of_its_modality() -> None:
    async with opened({"/": answer(b"x" * 100)}) as (one, _, base):
        video = await one.fault_of(f"{base}/", modality=Modality.VIDEO, max_bytes=10)
        image = await one.fault_of(f"{base}/", max_bytes=11)
    assert video.message == "it is over the limit of 10 bytes (media.max_video_bytes)"
    assert image.message == "it is over the limit of 11 bytes (media.max_bytes)"


async def test_bodies_in_flight_are_bounded_by_what_has_come_and_not_by_what_is_promised() -> None:
    """One promises to fill the bound, and another still has room meanwhile; a third that comes beyond is refused."""
    halted: Pages = {"/": [HEAD + b"content-length: 1000\r\n\r\n", b"x" * 600, None]}
    limits: dict[str, Any] = {"max_bytes": 1000, "max_video_bytes": 1000, "max_bytes_in_flight": 1000}
    async with serve(halted) as slow, opened({"/300": answer(b"x" * 300)}, **limits) as (one, _, base):
        held = asyncio.create_task(one.get(f"http://127.0.0.1:{slow.port}/"))
        while one.value("bytes_in_flight") < 600:
            await asyncio.sleep(0.01)
        assert len(await one.get(f"{base}/300")) == 300
        fault = await one.fault_of(f"http://127.0.0.1:{slow.port}/", modality=Modality.AUDIO)
        assert type(fault) is OverloadedError
        assert fault.retry_after
        assert "(media.max_bytes_in_flight)" in fault.message
        held.cancel()
        await asyncio.wait([held])
    assert one.value("bytes_in_flight") == 0


async def test_fetches_are_counted_and_timed() -> None:
    async with opened({"/": answer(b"data")}) as (one, _, base):
        await one.get(f"{base}/", modality=Modality.AUDIO)
        await one.fault_of(f"{base}/missing")
        await one.fault_of("http://")
        assert one.outcomes("audio") == {"ok": 1}
        assert one.outcomes() == {"media_unreachable": 2}
        assert one.value("fetched_bytes_total", modality="audio") == 4
        assert one.value("fetch_seconds_count", modality="audio") == 1
        assert one.value("bytes_in_flight") == 0


async def test_fetching_can_be_switched_off() -> None:
    async with opened({"/": answer(b"data")}, fetch=False) as (one, site, base):
        assert "media.fetch" in (await one.fault_of(f"{base}/")).message
    assert site.connections == 0


async def test_a_malformed_url_is_the_clients_fault() -> None:
    for url in ("http://[::1", "http://a:b/", "http://a/\x00", "http://" + "a" * 70_000):
        assert type(await fetching().fault_of(url)) is MediaError


async def test_tls_checks_the_name_of_the_url_although_the_address_is_pinned(tmp_path: Path) -> None:
    names: list[str | None] = []
    file = certificate(tmp_path)
    async with serve({"/": answer(b"data")}, tls=server_side(file, names)) as site:
        one = fetching("127.0.0.1", tls=ssl.create_default_context(cafile=file), **OPEN)
        assert await one.get(f"https://media.example.:{site.port}/") == b"data"
        assert "reached" in (await one.fault_of(f"https://other.example:{site.port}/")).message
        assert (
            "reached" in (await fetching("127.0.0.1", **OPEN).fault_of(f"https://media.example:{site.port}/")).message
        )
    assert names == ["media.example", "other.example", "media.example"]
    assert len(site.requests) == 1
