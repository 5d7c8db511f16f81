"""The keys of one token provider, read from it again and again."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from contextvars import Context
from functools import cache
from typing import Never
from urllib.parse import urlsplit

import certifi
import httpx
import msgspec
from jwt import PyJWK

from gateway.access import signing_keys
from gateway.access.signing_keys import SigningKeys
from gateway.errors import ProviderUnavailableError
from gateway.settings import JwtSettings, is_loopback

logger = logging.getLogger(__name__)

#: Bytes. Sets of keys have some thousands.
_LARGEST_DOCUMENT = 1024 * 1024

#: Seconds between two readings at least, whatever tokens say; and between two attempts while the provider is down.
_SHORTEST_PAUSE = 10.0

#: OpenID Connect Discovery, section 4.
_DISCOVERY = "/.well-known/openid-configuration"


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class KeySet:
    """The keys of the provider called `name`, as they were last read.

    While the provider is down the keys stay that it had. `run` reads them again and again; what `find` misses is looked
    for sooner. `clock` is in seconds and never goes back.
    """

    def __init__(self, name: str, settings: JwtSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.keys = SigningKeys()
        self.failures = 0
        self.fetched_at: float | None = None
        self._settings = settings
        self._clock = clock
        self._fault: str | None = None
        self._client: httpx.AsyncClient | None = None
        self._reading: asyncio.Task[None] | None = None
        self._begun = -_SHORTEST_PAUSE

    @property
    def healthy(self) -> bool:
        """Whether the last reading succeeded. `fetched_at` is when one did (Unix time), `failures` how many did not."""
        return self.fault is None

    @property
    def fault(self) -> str | None:
        """Why the last reading failed; None where it succeeded."""
        return "not read yet" if self.fetched_at is None and self._fault is None else self._fault

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key for a token with that header, which may be newer than the last reading; None where there is none.

        Raises ProviderUnavailableError where that cannot be told now.
        """
        key = self.keys.find(kid, algorithm)
        if key is None:
            await self._renew()
            key = self.keys.find(kid, algorithm)
        if key is None and not self.healthy:
            raise ProviderUnavailableError(
                f"The keys of the token provider {self.name!r} cannot be read now; try again later.",
                retry_after=_SHORTEST_PAUSE,
            )
        return key

    async def run(self) -> Never:
        """Reads the keys, now and every `refresh_seconds`, until cancelled."""
        while True:
            await asyncio.shield(self._read_once())
            refresh = self._settings.refresh_seconds
            await asyncio.sleep(refresh if self.healthy else min(refresh, _SHORTEST_PAUSE))

    async def aclose(self) -> None:
        """Ends a reading that is going on, and lets go of connections."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        if self._client is not None:
            await self._client.aclose()

    async def _renew(self) -> None:
        """Reads the keys unless that was done just now. Whoever asks meanwhile waits for the same reading."""
        busy = self._reading is not None and not self._reading.done()
        if busy or self._clock() - self._begun >= _SHORTEST_PAUSE:
            # A client that leaves must not end what others wait for.
            await asyncio.shield(self._read_once())

    def _read_once(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._begun = self._clock()
            # Several may wait for it: its log lines are no one request's.
            self._reading = asyncio.create_task(self._read(), context=Context())
        return self._reading

    async def _read(self) -> None:
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                document = await self._get(await self._address())
            keys = signing_keys.read(document, self._settings.algorithms)
        except TimeoutError:
            self._failed(f"no answer within {seconds:g} s (timeout_seconds)")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
            self._failed(str(fault) or type(fault).__name__)
        else:
            self._succeeded(keys)

    def _failed(self, fault: str) -> None:
        if self._fault is None:
            # Once, not at every attempt.
            logger.warning("cannot read the keys of the token provider %s, those it had stay: %s", self.name, fault)
        self._fault = fault
        self.failures += 1

    def _succeeded(self, keys: SigningKeys) -> None:
        if self._fault is not None:
            logger.info("the keys of the token provider %s can be read again", self.name)
        self._fault = None
        self.fetched_at = time.time()
        if keys.published != self.keys.published:
            self.keys = keys
            say = logger.info if keys.able else logger.warning
            say("the token provider %s has %d keys for %s", self.name, keys.able, ", ".join(self._settings.algorithms))

    async def _address(self) -> str:
        """Where the keys are. Raises ValueError where the provider's discovery document is not to be believed."""
        if self._settings.jwks_url is not None:
            return self._settings.jwks_url
        issuer = self._settings.issuer
        url = issuer.rstrip("/") + _DISCOVERY
        try:
            found = msgspec.json.decode(await self._get(url), type=_Discovery)
        except (msgspec.DecodeError, RecursionError) as fault:
            raise ValueError(f"{url} is no discovery document: {fault}") from fault
        if found.issuer != issuer:
            raise ValueError(f"{url} is about the issuer {found.issuer!r}, not {issuer!r}; correct `issuer`")
        return _secure(found.jwks_uri)

    async def _get(self, url: str) -> bytes:
        """The document. Raises ValueError for any other answer, httpx's errors where there is none."""
        if self._client is None:
            self._client = await asyncio.to_thread(_client)
        # Not compressed, so that no more has to be held than was counted.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"{url} answered with status {response.status_code}")
            parts, size = [], 0
            async for part in response.aiter_raw():
                parts.append(part)
                size += len(part)
                if size > _LARGEST_DOCUMENT:
                    raise ValueError(f"{url} answered with more than {_LARGEST_DOCUMENT} bytes")
        return b"".join(parts)


def _secure(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return url
    raise ValueError(f"the discovery document's jwks_uri, {url!r}, is not https")


@cache
def _trust() -> ssl.SSLContext:
    """The system's authorities, to which a company's own may have been added, and the public ones. Takes some 80 ms."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(certifi.where())
    return trust


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_trust(), trust_env=False, follow_redirects=False, timeout=None)  # noqa: S113 - see _read
