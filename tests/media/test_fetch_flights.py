"""A URL that several want at the same time is fetched once, for each of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from gateway.errors import MediaUnreachableError
from gateway.settings import Modality
from tests.media.fetching import Fetching, opened
from tests.media.site import Page, Site, answer


class Gate:
    """A page that is answered when told."""

    def __init__(self, page: bytes) -> None:
        self._page = page
        self.opened = asyncio.Event()

    def __call__(self, _: bytes) -> Page:
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        while not self.opened.is_set():
            yield b""
        yield self._page


async def under_way(one: Fetching, site: Site, url: str, count: int) -> list[asyncio.Task[bytes]]:
    """That many fetches of one URL, once the server has been asked."""
    tasks = [asyncio.create_task(one.get(url)) for _ in range(count)]
    while not site.requests:
        await asyncio.sleep(0.005)
    return tasks


async def test_many_get_one_body() -> None:
    gate = Gate(answer(b"data", cache_control="no-store"))
    async with opened({"/": gate}) as (one, site, base):
        tasks = await under_way(one, site, f"{base}/", 50)
        gate.opened.set()
        bodies = await asyncio.gather(*tasks)
        assert bodies == [b"data"] * 50
        assert len({id(body) for body in bodies}) == 1
        assert site.connections == 1
        assert one.outcomes() == {"ok": 1, "joined": 49}
        assert one.value("bytes_in_flight") == 0


async def test_one_after_the_other_each_fetches() -> None:
    async with opened({"/": answer(b"data")}) as (one, site, base):
        for _ in range(2):
            await one.get(f"{base}/")
        assert site.connections == 2


async def test_whoever_leaves_does_not_cancel_it_for_the_others() -> None:
    gate = Gate(answer(b"data"))
    async with opened({"/": gate}) as (one, site, base):
        first, *others = await under_way(one, site, f"{base}/", 3)
        first.cancel()
        await asyncio.wait([first])
        others.append(asyncio.create_task(one.get(f"{base}/")))
        await asyncio.sleep(0)
        gate.opened.set()
        assert await asyncio.gather(*others) == [b"data"] * 3
        assert first.cancelled()
        assert site.connections == 1


async def test_the_last_that_leaves_cancels_it_and_who_comes_then_begins_anew() -> None:
    pages: list[Page] = [answer(b"data"), None]
    async with opened({"/": lambda _: pages.pop()}) as (one, site, base):
        tasks = await under_way(one, site, f"{base}/", 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await one.get(f"{base}/") == b"data"
        await asyncio.wait_for(site.gone.wait(), 2)
        assert one.outcomes() == {"cancelled": 1, "joined": 2, "ok": 1}


async def test_an_error_reaches_each_as_an_exception_of_its_own() -> None:
    gate = Gate(answer(b"", "404 Not Found"))
    async with opened({"/": gate}) as (one, site, base):
        tasks = await under_way(one, site, f"{base}/", 5)
        gate.opened.set()
        faults = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(fault) for fault in faults} == {MediaUnreachableError}
        assert len({id(fault) for fault in faults}) == 5
        assert {str(fault) for fault in faults} == {"the server answered 404"}
        assert one.outcomes() == {"joined": 4, "media_unreachable": 1}


async def test_an_error_after_all_have_left_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    """It must not show up as an exception that was never retrieved."""
    gate = Gate(answer(b"", "404 Not Found"))
    async with opened({"/": gate}) as (one, site, base):
        (task,) = await under_way(one, site, f"{base}/", 1)
        gate.opened.set()
        while not one.outcomes():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_other_limits_are_another_fetch() -> None:
    gate = Gate(answer(b"data" * 10))
    async with opened({"/": gate}) as (one, site, base):
        tasks = [
            asyncio.create_task(one.get(f"{base}/", modality, max_bytes))
            for modality, max_bytes in [(Modality.IMAGE, 100), (Modality.IMAGE, 10), (Modality.VIDEO, 100)]
        ]
        gate.opened.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result)[:26] for result in results] == [
            str(b"data" * 10)[:26],
            "it is over the limit of 10",
            str(b"data" * 10)[:26],
        ]
        assert site.connections == 3
