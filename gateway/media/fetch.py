"""Fetches media over http(s): the gateway's only calls to hosts that clients name.

What is connected to is decided in `dial`, for each hop anew; what is read, and for how long, here and in `exchange`.
No connection is used twice, and no cookie, credential or word about the caller is sent.

Bodies are kept, and flights shared, for all callers alike. That leaks no content between them: nothing is sent that
differs from caller to caller, so whoever knows a URL gets from the gateway what the server gives to anyone with that
URL, and what the server marks as private, as not to be stored, or with a cookie is not kept. The URL is the secret, and
its whole text, signatures included, is the key. What can be learned is that somebody has lately fetched a URL that one
knows already, by the time an answer takes; `media.cache_bytes: 0` ends that but for requests at the same moment.

Each URL's answer is kept under that URL, never under one that redirects to it, so that every hop is asked for and
checked again. What is kept is used without resolving its host: nothing is connected to, and the rules for hosts and
networks cannot change while the gateway runs.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO

from gateway.errors import GatewayError, MediaError, MediaTimeoutError, MediaTooLargeError, MediaUnreachableError
from gateway.ledger import Ledger
from gateway.media import exchange, freshness, urls
from gateway.media.cache import Cache
from gateway.media.dial import Dialer, Resolver
from gateway.media.flights import Flights
from gateway.media.freshness import Stored
from gateway.media.urls import Url
from gateway.metrics import Metrics
from gateway.settings import MediaSettings, Modality

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is fetched, and within which limit; alike wishes share a flight."""

    url: Url
    modality: Modality
    max_bytes: int

    def check(self, size: int) -> None:
        if size > self.max_bytes:
            key = "max_video_bytes" if self.modality is Modality.VIDEO else "max_bytes"
            raise MediaTooLargeError(f"it is over the limit of {self.max_bytes} bytes (media.{key})")


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A body, and how it was come by: ok, hit or revalidated."""

    body: bytes
    outcome: str = "ok"


class Fetcher:
    """Fetches within the limits of `settings`, its bytes on the `ledger`.

    `resolver` and `tls` are for tests and special trust.
    """

    def __init__(
        self,
        settings: MediaSettings,
        metrics: Metrics,
        ledger: Ledger,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._ledger = ledger
        self._dialer = Dialer(settings, resolver, tls)
        self._slots = asyncio.Semaphore(settings.max_fetches)
        self._flights: Flights[_Wish, bytes] = Flights()
        kept_bytes = metrics.media_cache_bytes.labels("fetched")
        self._cache: Cache[Url, Stored] = Cache(settings.cache_bytes, settings.cache_entries, kept_bytes, Stored.size)

    async def fetch(self, url: str, modality: Modality, max_bytes: int) -> bytes:
        """The body behind `url`.

        Raises MediaError for a malformed URL, MediaUnreachableError where the address is refused or the server does
        not give it, MediaTooLargeError over `max_bytes`, MediaTimeoutError over `first_byte_seconds` or
        `fetch_seconds`, OverloadedError over `max_bytes_in_flight`.
        """
        wish = _Wish(self._parse(url, modality), modality, max_bytes)
        kept = self._cache.get(wish.url)
        if kept is not None and kept.expires > _now():
            self._count(modality, "hit")
            wish.check(len(kept.body))
            return kept.body
        if wish in self._flights:
            self._count(modality, "joined")
        return await self._flights.join(wish, lambda: self._fly(wish))

    async def aclose(self) -> None:
        """Cancels what is under way."""
        await self._flights.aclose()
        self._dialer.close()

    def _parse(self, url: str, modality: Modality) -> Url:
        try:
            if not self._settings.fetch:
                raise MediaUnreachableError("this gateway fetches no URLs (media.fetch is off); send the data itself")
            return urls.parse(url)
        except MediaError as fault:
            self._count(modality, fault.code)
            raise

    def _count(self, modality: Modality, outcome: str | None) -> None:
        self._metrics.fetches.labels(modality, outcome).inc()

    # One flight

    async def _fly(self, wish: _Wish) -> bytes:
        started = time.perf_counter()
        outcome: str | None = "cancelled"
        try:
            fetched = await self._in_time(wish)
            outcome = fetched.outcome
            return fetched.body
        except GatewayError as fault:
            outcome = fault.code
            raise
        finally:
            self._count(wish.modality, outcome)
            self._metrics.fetch_seconds.labels(wish.modality).observe(time.perf_counter() - started)

    async def _in_time(self, wish: _Wish) -> _Fetched:
        seconds = self._settings.fetch_seconds
        late = f"fetching it took longer than {seconds:g} seconds (media.fetch_seconds)"
        async with _within(seconds, late), self._slots:
            return await self._follow(wish)

    async def _follow(self, wish: _Wish) -> _Fetched:
        url = wish.url
        for _ in range(self._settings.max_redirects + 1):
            found = await self._hop(url, wish)
            if isinstance(found, _Fetched):
                return found
            url = found
        raise MediaUnreachableError(f"more than {self._settings.max_redirects} redirects (media.max_redirects)")

    async def _hop(self, url: Url, wish: _Wish) -> _Fetched | Url:
        """What one URL leads to: a body, or another URL."""
        kept = self._cache.get(url)
        if kept is not None and kept.expires > _now():
            wish.check(len(kept.body))
            return _Fetched(kept.body, "hit")
        asked, conditions = _now(), kept.conditions() if kept else {}
        async with self._ask(url, conditions) as answer:
            location = answer.headers.get("location")
            if answer.status in _REDIRECTS and location is not None:
                return url.join(location)
            if answer.status == 304 and kept and conditions:
                return self._renew(url, wish, kept, answer, asked)
            body = await self._read(answer, wish)
        self._keep(url, freshness.storable(body, answer.headers, asked, _now(), time.time()))
        return _Fetched(body)

    @asynccontextmanager
    async def _ask(self, url: Url, conditions: dict[str, str]) -> AsyncIterator[exchange.Answer]:
        """An answer whose head has come."""
        seconds = self._settings.first_byte_seconds
        late = f"the server did not begin to answer within {seconds:g} seconds (media.first_byte_seconds)"
        async with _within(seconds, late) as deadline, self._dialer.connect(url.origin) as (reader, writer):
            writer.write(exchange.request(url.authority, url.target, conditions))
            answer = exchange.Answer(reader)
            await answer.head()
            deadline.reschedule(None)
            yield answer

    async def _read(self, answer: exchange.Answer, wish: _Wish) -> bytes:
        """The body of an answer that is one. Its length is believed only where it is too long."""
        if answer.status != 200:
            raise MediaUnreachableError(f"the server answered {answer.status}")
        if not answer.is_plain():
            raise MediaUnreachableError("the server compressed the answer although asked not to")
        length = answer.headers.get("content-length", "")
        wish.check(int(length) if length.isdecimal() else 0)
        fetched_bytes = self._metrics.fetched_bytes.labels(wish.modality)
        body = BytesIO()  # Gives up what was written without a copy, other than a bytearray.
        with self._ledger.hold() as held:
            while chunk := await answer.read():
                wish.check(held.count + len(chunk))
                held.add(len(chunk))
                fetched_bytes.inc(len(chunk))
                body.write(chunk)
            return body.getvalue()

    # What is kept

    def _renew(self, url: Url, wish: _Wish, kept: Stored, answer: exchange.Answer, asked: float) -> _Fetched:
        self._keep(url, freshness.renewed(kept, answer.headers, asked, _now(), time.time()))
        wish.check(len(kept.body))
        return _Fetched(kept.body, "revalidated")

    def _keep(self, url: Url, stored: Stored | None) -> None:
        if stored is None:
            self._cache.drop(url)
        else:
            self._cache.put(url, stored)


@asynccontextmanager
async def _within(seconds: float, late: str) -> AsyncIterator[asyncio.Timeout]:
    """Ends the block after `seconds` by MediaTimeoutError with the text `late`."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield deadline
    except TimeoutError:
        raise MediaTimeoutError(late) from None


def _now() -> float:
    return asyncio.get_running_loop().time()
