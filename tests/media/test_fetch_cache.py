"""What servers allow to be kept is asked for once, what they do not is asked for each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from gateway.errors import MediaTooLargeError
from gateway.media import urls
from gateway.settings import Modality
from tests.media.fetching import opened
from tests.media.site import Page, Pages, answer, redirect

FRESH = answer(b"data", cache_control="max-age=60")


def changing(**headers: str) -> Callable[[bytes], Page]:
    """A page whose body is another one each time: 0, 1, 2, ..."""
    numbers = itertools.count()
    return lambda _: answer(str(next(numbers)).encode(), **headers)


def validated(**headers: str) -> Callable[[bytes], Page]:
    """A page with the validators of `headers`, which is not sent again to who has it."""

    def page(head: bytes) -> Page:
        sent = head.decode().lower()
        etag, modified = headers.get("etag"), headers.get("last_modified")
        if f"if-none-match: {etag}\r\n".lower() in sent or f"if-modified-since: {modified}\r\n".lower() in sent:
            return answer(b"", "304 Not Modified", **headers).replace(b"content-length: 0\r\n", b"")
        return answer(b"data", **headers)

    return page


async def test_a_fresh_body_is_not_asked_for_again() -> None:
    async with opened({"/": changing(cache_control="max-age=60")}) as (one, site, base):
        assert [await one.get(f"{base}/{fragment}") for fragment in ("", "#a", "")] == [b"0", b"0", b"0"]
        assert site.connections == 1
        assert one.outcomes() == {"ok": 1, "hit": 2}
        assert one.value("fetch_seconds_count", modality="image") == 1
        assert one.value("cache_bytes", cache="fetched") > 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cache_control": "no-store"},
        {"cache_control": "private, max-age=60"},
        {"cache_control": "max-age=60, PRIVATE"},
        {"cache_control": "no-store", "etag": '"a"'},
        {"cache_control": "max-age=60", "vary": "*"},
        {"cache_control": "max-age=60", "set_cookie": "session=1"},
        {"cache_control": "max-age=0"},
        {"cache_control": "max-age=60", "age": "61"},
        {"cache_control": "max-age=60, s-maxage=0"},
        {"expires": "0"},
        {"etag": '"\u00e9"'},
    ],
)
async def test_what_may_not_be_kept_is_asked_for_again(headers: dict[str, str]) -> None:
    async with opened({"/": changing(**headers)}) as (one, _, base):
        assert [await one.get(f"{base}/") for _ in range(2)] == [b"0", b"1"]
        assert one.value("cache_bytes", cache="fetched") == 0


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"etag": '"a"'}, 'If-None-Match: "a"'),
        ({"etag": 'W/"a"', "cache_control": "no-cache"}, 'If-None-Match: W/"a"'),
        ({"last_modified": formatdate(0, usegmt=True)}, f"If-Modified-Since: {formatdate(0, usegmt=True)}"),
    ],
)
async def test_a_stale_body_is_asked_for_by_its_validators(headers: dict[str, str], sent: str) -> None:
    async with opened({"/": validated(**headers)}) as (one, site, base):
        assert [await one.get(f"{base}/") for _ in range(3)] == [b"data"] * 3
        assert [sent.encode() in head for head in site.requests] == [False, True, True]
        assert one.outcomes() == {"ok": 1, "revalidated": 2}
        assert one.value("fetched_bytes_total", modality="image") == 4


async def test_a_304_makes_a_body_fresh_again() -> None:
    answers = iter([answer(b"data", etag='"a"'), b"HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\n\r\n"])
    async with opened({"/": lambda _: next(answers)}) as (one, _, base):
        assert [await one.get(f"{base}/") for _ in range(4)] == [b"data"] * 4
        assert one.outcomes() == {"ok": 1, "revalidated": 1, "hit": 2}


async def test_a_body_that_has_changed_takes_the_place_of_the_stale_one() -> None:
    async with opened({"/": changing(etag='"a"')}) as (one, _, base):
        assert [await one.get(f"{base}/") for _ in range(3)] == [b"0", b"1", b"2"]


async def test_a_body_that_may_no_longer_be_kept_is_forgotten() -> None:
    answers = iter([answer(b"a", etag='"a"'), answer(b"b", cache_control="no-store")])
    async with opened({"/": lambda _: next(answers)}) as (one, _, base):
        assert [await one.get(f"{base}/") for _ in range(2)] == [b"a", b"b"]
        assert one.value("cache_bytes", cache="fetched") == 0


async def test_a_stale_body_is_not_used_where_the_server_fails() -> None:
    answers = iter([answer(b"data", etag='"a"'), answer(b"", "500 Oops")])
    async with opened({"/": lambda _: next(answers)}) as (one, _, base):
        await one.get(f"{base}/")
        assert "500" in (await one.fault_of(f"{base}/")).message


async def test_a_redirect_is_followed_each_time_and_what_it_leads_to_is_kept() -> None:
    pages: Pages = {"/": redirect("/a").replace(b"\r\n\r\n", b"\r\ncache-control: max-age=60\r\n\r\n"), "/a": FRESH}
    async with opened(pages) as (one, site, base):
        assert [await one.get(base + path) for path in ("/", "/", "/a")] == [b"data"] * 3
        assert site.paths() == ["/", "/a", "/"]
        assert one.outcomes() == {"ok": 1, "hit": 2}


async def test_another_query_is_another_body() -> None:
    page = changing(cache_control="max-age=60")
    async with opened({"/?a": page, "/?b": page}) as (one, _, base):
        assert [await one.get(f"{base}/?{query}") for query in "aba"] == [b"0", b"1", b"0"]


async def test_what_is_kept_is_held_to_the_limit_of_who_asks() -> None:
    async with opened({"/": FRESH}) as (one, site, base):
        await one.get(f"{base}/")
        fault = await one.fault_of(f"{base}/", modality=Modality.VIDEO, max_bytes=3)
        assert type(fault) is MediaTooLargeError
        assert "3 bytes (media.max_video_bytes)" in fault.message
        assert site.connections == 1


async def test_a_stale_body_is_held_to_the_limit_of_who_asks() -> None:
    async with opened({"/": validated(etag='"a"')}) as (one, _, base):
        await one.get(f"{base}/")
        assert type(await one.fault_of(f"{base}/", max_bytes=3)) is MediaTooLargeError


@pytest.mark.parametrize(("settings", "requests"), [({"cache_bytes": 0}, 4), ({"cache_entries": 1}, 4), ({}, 2)])
async def test_the_cache_is_bounded_and_can_be_switched_off(settings: dict[str, Any], requests: int) -> None:
    async with opened({"/a": FRESH, "/b": FRESH}, **settings) as (one, site, base):
        for path in ("/a", "/b", "/a", "/b"):
            assert await one.get(base + path) == b"data"
        assert site.connections == requests


async def test_a_304_that_was_not_asked_for_renews_nothing() -> None:
    answers = iter([FRESH, b"HTTP/1.1 304 Not Modified\r\n\r\n"])
    async with opened({"/": lambda _: next(answers)}) as (one, _, base):
        await one.get(f"{base}/")
        url = urls.parse(f"{base}/")
        kept = one.fetcher._cache.get(url)
        assert kept is not None
        one.fetcher._cache.put(url, replace(kept, expires=0))
        assert "304" in (await one.fault_of(f"{base}/")).message
