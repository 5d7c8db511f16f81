"""Nothing inside is ever connected to, whatever a URL, a DNS answer or a chain of redirects says.

Two witnesses: a canary that listens on every local address and counts who comes, and Python's audit events, which tell
each address that this process itself connects to, those that nobody here listens on included.
"""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.errors import GatewayError, MediaError, MediaTimeoutError, MediaUnreachableError
from tests.media.fetching import fetching
from tests.media.site import Page, Pages, Site, answer, redirect, serve

#: Where the sites of these tests listen, which alone may be reached. `{port}` in a URL is the canary's.
REACHABLE = "127.0.0.2"
OUTSIDE: dict[str, Any] = {"allowed_networks": [f"{REACHABLE}/32"]}

HOSTILE = [
    # Loopback by name.
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost..:{port}/",
    "http://.localhost:{port}/",
    "http://%6c%6fcalhost:{port}/",
    "http://ip6-localhost:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/",  # noqa: RUF001
    "http://local\u00adhost:{port}/",
    "http://local\u200bhost:{port}/",
    "http://xn--localhost-:{port}/",
    # Loopback by number, in every form that resolvers read.
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://6425673729:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0X7F000001:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://00000177.0.0.01:{port}/",
    "http://0177.0x0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1%20:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://１２７.0.0.1:{port}/",  # noqa: RUF001
    "http://١٢٧.0.0.1:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127．0．0．1:{port}/",  # noqa: RUF001
    "http://127｡0｡0｡1:{port}/",
    # IPv6, with IPv4 inside by every way there is.
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    "http://[::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::80ff:fffe]:{port}/",
    "http://[2a00:1450:4001:800:0:5efe:127.0.0.1]:{port}/",
    "http://[2a00:1450:4001:800:200:5efe:7f00:1]:{port}/",
    "http://[fe80::5efe:127.0.0.1]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%251]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://[v1.127.0.0.1]:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[::1:{port}/",
    "http://::1:{port}/",
    # Other insides.
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://169.254.1.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    # Metadata of clouds.
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254.:{port}/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://metadata.google.internal/",
    # Who is the host?
    "http://user@127.0.0.1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://:@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://example.com%40127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@example.invalid/",
    "http://a@b@127.0.0.1:{port}/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.invalid/",
    "http://127.0.0.1\\.example.invalid:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "http:/\\127.0.0.1:{port}/",
    "http://example.invalid#@127.0.0.1:{port}/",
    "http://example.invalid?@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#.example.com/",
    "http://127.0.0.1:{port}?.example.com/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:////127.0.0.1:{port}/",
    # White space and control characters.
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port} /",
    "http://127.0.0.1 .example.invalid:{port}/",
    "http://\t127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://127.0.0.1\n:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: example.com",
    "http://127.0.0.1:{port}/%0d%0aHost:%20example.com",
    "http://127.0.0.1:{port}\x00.example.com/",
    # Ports.
    "http://127.0.0.1:0{port}/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:８０/",  # noqa: RUF001
    "http://:{port}/",
    "http://",
    # Other protocols.
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "file://127.0.0.1:{port}/etc/passwd",
    "data://127.0.0.1:{port}/,x",
    "ws://127.0.0.1:{port}/",
    "jar:http://127.0.0.1:{port}/!/",
    "unix://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "",
]

#: Each with a status, all five in turn.
REDIRECTS = list(zip(HOSTILE, itertools.cycle([301, 302, 303, 307, 308]), strict=False))

#: Addresses, as audit events told of them.
connected: list[str] = []


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        _, address = arguments
        connected.append(str(address[0] if isinstance(address, tuple) else address))


sys.addaudithook(note)


@pytest.fixture(autouse=True)
def only_the_reachable_is_connected_to() -> Iterator[None]:
    connected.clear()
    yield
    assert set(connected) <= {REACHABLE}


@asynccontextmanager
async def watch() -> AsyncIterator[Site]:
    """A canary on all local addresses but the reachable one, on one port."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serve({}))
        others = ["127.255.255.254", *(["::1"] if socket.has_dualstack_ipv6() else [])]
        sites = [await stack.enter_async_context(serve({}, host, port=first.port)) for host in others]
        yield first
        assert [site.connections for site in (first, *sites)] == [0] * (1 + len(sites))


async def refused(url: str, *answers: str) -> GatewayError:
    fault = await fetching(*answers, **OUTSIDE, first_byte_seconds=2).fault_of(url)
    assert isinstance(fault, MediaError | MediaTimeoutError)
    return fault


def test_the_table_is_as_long_as_was_promised() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


async def test_the_witnesses_see_a_connection() -> None:
    async with serve({"/": answer(b"data")}, REACHABLE) as site:
        assert await fetching(**OUTSIDE).get(f"http://{REACHABLE}:{site.port}/") == b"data"
    assert (connected, site.connections) == ([REACHABLE], 1)


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url_connects_to_nothing_inside(url: str) -> None:
    async with watch() as canary:
        await refused(url.format(port=canary.port))
    assert connected == []


@pytest.mark.parametrize(("url", "status"), REDIRECTS)
async def test_a_redirect_to_a_hostile_url_connects_to_nothing_inside(url: str, status: int) -> None:
    async with watch() as canary, AsyncExitStack() as stack:
        location = url.format(port=canary.port).encode().replace(b"\r", b"").replace(b"\n", b"")
        page = b"HTTP/1.1 %d Moved\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, location)
        site = await stack.enter_async_context(serve({"/": page}, REACHABLE))
        await refused(f"http://{REACHABLE}:{site.port}/")
        assert site.connections >= 1


#: Chains of redirects that begin outside: path to where it leads. `{inside}` is the canary, `{outside}` the site.
CHAINS: dict[str, dict[str, str]] = {
    "one hop more": {"/": "/a", "/a": "{inside}"},
    "the last hop that is allowed": {"/": "/a", "/a": "/b", "/b": "{inside}"},
    "beyond the last hop": {"/": "/a", "/a": "/b", "/b": "/c", "/c": "{inside}"},
    "a loop of one": {"/": "/"},
    "a loop of two": {"/": "/a", "/a": "/"},
    "a loop by spellings": {"/": "{outside}/", "/?": "/"},
    "without a scheme": {"/": "//127.0.0.1:{port}/"},
    "with backslashes": {"/": "\\\\127.0.0.1:{port}\\"},
    "by a path that looks like a host": {"/": "/a", "/a": "///127.0.0.1:{port}/"},
    "with credentials": {"/": "http://127.0.0.2:1@127.0.0.1:{port}/"},
    "as https": {"/": "https://127.0.0.1:{port}/"},
    "by ftp": {"/": "/a", "/a": "ftp://127.0.0.1:{port}/"},
    "by file": {"/": "file:///etc/passwd"},
    "by gopher": {"/": "gopher://127.0.0.1:{port}/_GET"},
    "by data": {"/": "data:image/png;base64,AAAA"},
    "to nowhere": {"/": "http://"},
    "to itself by an empty location": {"/": ""},
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
async def test_a_chain_of_redirects_ends_outside(chain: dict[str, str]) -> None:
    async with watch() as canary, AsyncExitStack() as stack:
        inside = f"http://127.0.0.1:{canary.port}/"
        pages: dict[str, Page] = {}
        site = await stack.enter_async_context(serve(pages, REACHABLE))
        outside = f"http://{REACHABLE}:{site.port}"
        for path, location in chain.items():
            pages[path] = redirect(location.format(inside=inside, outside=outside, port=canary.port))
        fault = await refused(f"{outside}/")
        assert type(fault) is MediaUnreachableError
        assert 1 <= site.connections <= 4


#: Status, header fields and body of answers that a browser might follow. `{inside}` is the canary's URL.
TEMPTATIONS: list[tuple[str, dict[str, str], str]] = [
    ("200 OK", {"location": "{inside}", "refresh": "0;url={inside}", "link": "<{inside}>;rel=preload"}, ""),
    ("200 OK", {"content-type": "text/html"}, '<meta http-equiv="refresh" content="0;url={inside}">'),
    ("200 OK", {"alt-svc": 'h2="127.0.0.1:443"', "content-location": "{inside}"}, ""),
    ("300 Multiple Choices", {"location": "{inside}"}, ""),
    ("304 Not Modified", {"location": "{inside}"}, ""),
    ("305 Use Proxy", {"location": "{inside}"}, ""),
    ("306 Switch Proxy", {"location": "{inside}"}, ""),
    ("401 Unauthorized", {"www-authenticate": "Basic realm=x", "location": "{inside}"}, ""),
    ("407 Proxy Authentication Required", {"proxy-authenticate": "Basic realm=x"}, ""),
]


@pytest.mark.parametrize(("status", "headers", "body"), TEMPTATIONS)
async def test_nothing_but_a_redirect_is_followed(status: str, headers: dict[str, str], body: str) -> None:
    async with watch() as canary, AsyncExitStack() as stack:
        inside = f"http://127.0.0.1:{canary.port}/"
        told = {name: value.format(inside=inside) for name, value in headers.items()}
        page = answer(body.format(inside=inside).encode(), status, **told)
        site = await stack.enter_async_context(serve({"/": page}, REACHABLE))
        got = fetching(**OUTSIDE).get(f"http://{REACHABLE}:{site.port}/")
        if status == "200 OK":
            assert await got == body.format(inside=inside).encode()
        else:
            with pytest.raises(MediaUnreachableError, match=f"the server answered {status[:3]}"):
                await got
        assert site.connections == 1


@pytest.mark.parametrize(
    "answers",
    [
        "127.0.0.1",
        "8.8.8.8 127.0.0.1",
        "127.0.0.1 8.8.8.8",
        "::1",
        "2606:4700::1 ::1",
        "::ffff:127.0.0.1",
        "::ffff:127.0.0.2",
        "127.0.0.2 10.0.0.1",
        "0.0.0.0",  # noqa: S104 - an answer, not bound to
        "169.254.169.254",
        "fe80::1%lo",
        "64:ff9b::7f00:1",
    ],
)
async def test_one_address_inside_refuses_the_whole_name(answers: str) -> None:
    async with watch() as canary:
        assert type(await refused(f"http://media.example:{canary.port}/", answers)) is MediaUnreachableError
    assert connected == []


async def test_a_dns_answer_that_changes_after_the_check_changes_nothing() -> None:
    """The checked address is the reachable one; whoever resolves once more gets the canary's."""
    async with watch() as canary, serve({"/": answer(b"data")}, REACHABLE) as site:
        one = fetching(REACHABLE, "127.0.0.1", **OUTSIDE)
        assert await one.get(f"http://media.example:{site.port}/") == b"data"
        assert type(await one.fault_of(f"http://media.example:{canary.port}/")) is MediaUnreachableError


async def test_a_redirect_to_the_same_name_is_resolved_and_checked_anew() -> None:
    async with watch() as canary, AsyncExitStack() as stack:
        pages: Pages = {"/": redirect(f"http://media.example:{canary.port}/")}
        site = await stack.enter_async_context(serve(pages, REACHABLE))
        one = fetching(REACHABLE, "127.0.0.1", **OUTSIDE)
        assert type(await one.fault_of(f"http://media.example:{site.port}/")) is MediaUnreachableError


async def test_errors_do_not_tell_what_is_inside() -> None:
    async with watch() as canary:
        urls = [f"http://127.0.0.1:{canary.port}/", "http://127.0.0.1:1/", "http://10.0.0.1/", "http://a.invalid/"]
        assert len({(await refused(url)).message for url in urls}) == 1


#: The rules, a host that they refuse, and the word that says so.
LISTS: list[tuple[dict[str, list[str]], str, str]] = [
    ({"denied_hosts": ["media.example"]}, "media.example", "denied_hosts"),
    ({"denied_hosts": ["Media.Example."]}, "MEDIA.EXAMPLE.", "denied_hosts"),
    ({"denied_hosts": ["*.example"]}, "a.b.example", "denied_hosts"),
    ({"denied_hosts": ["xn--bcher-kva.example"]}, "b\u00fccher.example", "denied_hosts"),
    (
        {"denied_hosts": ["media.example"], "allowed_hosts": ["*.example", "start.test"]},
        "media.example",
        "denied_hosts",
    ),
    ({"allowed_hosts": ["start.test"]}, "other.example", "allowed_hosts"),
    ({"allowed_hosts": ["start.test"]}, "sub.start.test", "allowed_hosts"),
    ({"allowed_hosts": ["start.test"]}, "xstart.test", "allowed_hosts"),
    ({"allowed_hosts": ["start.test", "*.example"]}, "example", "allowed_hosts"),
    ({"allowed_hosts": ["start.test", "*.media.example"]}, "evilmedia.example", "allowed_hosts"),
    ({"allowed_hosts": ["start.test", "*.media.example"]}, "a.media.example.evil.example", "allowed_hosts"),
    ({"allowed_hosts": ["start.test"]}, REACHABLE, "allowed_hosts"),
]


@pytest.mark.parametrize(("rules", "host", "word"), LISTS)
async def test_lists_of_hosts_hold_for_every_hop(rules: dict[str, Any], host: str, word: str) -> None:
    pages: dict[str, Page] = {"/data": answer(b"data")}
    async with serve(pages, REACHABLE) as site:
        refused_url = f"http://{host}:{site.port}/data"
        pages["/"] = answer(b"", "302 Found").replace(b"\r\n\r\n", f"\r\nlocation: {refused_url}\r\n\r\n".encode())
        one = fetching(REACHABLE, **OUTSIDE, **rules)
        assert word in (await one.fault_of(refused_url)).message
        assert word in (await one.fault_of(f"http://start.test:{site.port}/")).message
        assert site.paths() == ["/"]


async def test_denied_networks_hold_for_every_hop_and_win() -> None:
    async with serve({"/": redirect("http://media.example/")}, REACHABLE) as site:
        rules: dict[str, Any] = {"allowed_networks": ["127.0.0.0/8"], "denied_networks": ["127.0.0.3/32", "8.8.8.0/24"]}
        one = fetching(REACHABLE, "127.0.0.3", **rules)
        assert "public" in (await one.fault_of(f"http://start.test:{site.port}/")).message
        assert site.connections == 1
    for answers in ("127.0.0.3", "8.8.8.8", "64:ff9b::8.8.8.8"):
        assert "public" in (await fetching(answers, **rules).fault_of("http://media.example/")).message


async def test_what_the_lists_allow_is_fetched() -> None:
    rules: dict[str, Any] = {"allowed_hosts": ["media.example", "*.cdn.example"], "denied_hosts": ["bad.cdn.example"]}
    async with serve({"/": answer(b"data")}, REACHABLE) as site:
        one = fetching(REACHABLE, **OUTSIDE, **rules)
        for host in ("media.example", "a.cdn.example", "a.b.CDN.example."):
            assert await one.get(f"http://{host}:{site.port}/") == b"data"


async def test_a_host_that_is_allowed_may_still_not_lie_inside() -> None:
    async with watch() as canary:
        one = fetching("127.0.0.1", **OUTSIDE, allowed_hosts=["media.example"])
        assert "public" in (await one.fault_of(f"http://media.example:{canary.port}/")).message
