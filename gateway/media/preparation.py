"""Brings one media part to what the engine gets: loaded, looked at, decoded only where it must be, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import pybase64
from blake3 import blake3

from gateway.errors import MediaTooLargeError
from gateway.ledger import Ledger
from gateway.media import budget, folder, header, image, sources
from gateway.media.cache import Cache
from gateway.media.decode import Wanted, decode, seconds
from gateway.media.fetch import Fetcher
from gateway.media.flights import Flights
from gateway.media.prepared import Piece, Prepared
from gateway.media.workers import Workers
from gateway.metrics import Metrics
from gateway.protocol import Buffer
from gateway.settings import MediaSettings, Modality

#: Bytes; what is larger is hashed and encoded in a thread (4 MiB take about a millisecond).
_LARGE = 4 << 20

#: Nothing that takes more than one in so many of the cache's bytes is kept: it would drive out too much.
_SHARE = 8

#: Bytes that an entry of the cache takes besides its data, roughly.
_ENTRY = 1024

T = TypeVar("T")
Turn = AbstractAsyncContextManager[object]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The data of one part: base64 where `embedded`, and the hash of just these bytes."""

    modality: Modality
    data: Buffer
    embedded: bool
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of the data, decoded from base64."""
        return len(self.data) * 3 // 4 if self.embedded else len(self.data)

    def key(self, wanted: Wanted, rate: float | None = None) -> bytes:
        """A hash of all that the result of decoding depends on."""
        return blake3(f"{self.modality} {wanted} {rate}".encode() + self.digest).digest()


@dataclass(frozen=True, slots=True)
class Ready:
    """What the engine gets for a part. `unseen`: it goes on as it came, and only its ends were looked at."""

    prepared: Prepared
    key: bytes
    unseen: bool = False

    def uuid(self, index: int) -> str:
        """The engine's own key for a piece: in vLLM all callers share these keys, and nothing else is compared."""
        return blake3(self.key + b"%d" % index).hexdigest(16)


class Preparation:
    """Loads and decodes within the limits of `settings`, and keeps results that may be wanted again."""

    def __init__(self, settings: MediaSettings, metrics: Metrics, fetcher: Fetcher, ledger: Ledger) -> None:
        self._settings = settings
        self._metrics = metrics
        self._fetcher = fetcher
        self._ledger = ledger
        self._workers = Workers(settings, metrics)
        self._flights: Flights[bytes, Prepared] = Flights()
        kept_bytes = metrics.media_cache_bytes.labels("decoded")
        self._known: Cache[bytes, Prepared] = Cache(settings.cache_bytes, settings.cache_entries, kept_bytes, _size)
        self.warm = self._workers.warm

    async def aclose(self) -> None:
        """Ends what is being decoded, and the workers."""
        await self._flights.aclose()
        await self._workers.aclose()

    async def load(self, modality: Modality, source: sources.Source, payload: Buffer, turn: Turn) -> Loaded:
        """The data that `source` names; `payload` is its base64 where it is embedded. Fetching waits for its turn.

        Raises MediaError and its kin.
        """
        name = "max_video_bytes" if modality is Modality.VIDEO else "max_bytes"
        limit: int = getattr(self._settings, name)
        data: Buffer = payload
        match source:
            case sources.Embedded():
                _check_embedded(payload, limit, name)
            case sources.LocalFile(path):
                data = await asyncio.to_thread(folder.read, self._settings.folder, path, limit, name)
            case sources.Remote(url):
                async with turn:
                    data = await self._fetcher.fetch(url, modality, limit)
        return await self.loaded(modality, data, embedded=isinstance(source, sources.Embedded))

    async def loaded(self, modality: Modality, data: Buffer, *, embedded: bool) -> Loaded:
        """The data with its hash."""
        return Loaded(modality, data, embedded, await _apart(len(data), lambda: blake3(data).digest()))

    async def prepare(self, loaded: Loaded, wanted: Wanted, rate: float | None = None) -> Ready:
        """What the engine gets; `rate` in frames per second is for videos.

        Raises MediaError and its kin.
        """
        key = loaded.key(wanted, rate)
        known = self._known.get(key)
        glanced = None if known or loaded.modality is not Modality.IMAGE else self._at_a_glance(loaded, wanted)
        prepared = known or glanced or await self._decoded(key, loaded, wanted, rate)
        outcome = "cached" if known else "passed" if prepared is glanced else "decoded"
        self._metrics.media_parts.labels(loaded.modality, outcome).inc()
        return Ready(await _with_data(prepared, loaded), key, unseen=prepared is glanced)

    async def length(self, loaded: Loaded, wanted: Wanted) -> float:
        """How many seconds a video lasts.

        Raises MediaError and its kin.
        """
        with self._ledger.hold(loaded.size):
            return await self._workers.run(loaded.modality, seconds, bytes(loaded.data), loaded.embedded, wanted)

    async def verify(self, loaded: Loaded, wanted: Wanted) -> None:
        """Decodes what was passed unseen.

        Raises MediaError and its kin where it is broken.
        """
        await self._decoded(loaded.key(wanted), loaded, wanted)

    async def _decoded(self, key: bytes, loaded: Loaded, wanted: Wanted, rate: float | None = None) -> Prepared:
        """The same data that several requests bring at the same time are decoded once."""
        return await self._flights.join(key, lambda: self._decode(key, loaded, wanted, rate))

    async def _decode(self, key: bytes, loaded: Loaded, wanted: Wanted, rate: float | None) -> Prepared:
        with self._ledger.hold(loaded.size):
            prepared = await self._workers.run(
                loaded.modality, decode, loaded.modality, bytes(loaded.data), loaded.embedded, wanted, rate
            )
        if _size(prepared) <= self._settings.cache_bytes // _SHARE:
            self._known.put(key, prepared)
        return prepared

    def _at_a_glance(self, loaded: Loaded, wanted: Wanted) -> Prepared | None:
        """The image as it came, where its first and last bytes leave no doubt that the engine reads it well."""
        source = header.Base64(loaded.data) if loaded.embedded else header.Plain(loaded.data)
        seen = header.look(source)
        if seen is None or seen.width * seen.height > wanted.max_pixels:
            return None
        if wanted.shrink and image.worth_shrinking(seen.width, seen.height, wanted.family, wanted.max_soft_tokens):
            return None
        tokens = budget.image_tokens(
            seen.width, seen.height, wanted.family, wanted.max_soft_tokens, pan_and_scan=wanted.pan_and_scan
        )
        return Prepared((Piece(Modality.IMAGE, seen.media_type, None, tokens),))


async def _apart(size: int, work: Callable[[], T]) -> T:
    """The result of `work`, from a thread where it is about many bytes."""
    return await asyncio.to_thread(work) if size > _LARGE else work()


async def _with_data(prepared: Prepared, loaded: Loaded) -> Prepared:
    """With the base64 of what goes on as it came, unless the request holds that already."""
    if loaded.embedded or all(piece.base64 is not None for piece in prepared.pieces):
        return prepared
    encoded = await _apart(len(loaded.data), lambda: pybase64.b64encode(loaded.data))
    pieces = (replace(piece, base64=encoded) if piece.base64 is None else piece for piece in prepared.pieces)
    return replace(prepared, pieces=tuple(pieces))


def _check_embedded(payload: Buffer, limit: int, name: str) -> None:
    if len(payload) // 4 * 3 > limit + 2:
        raise MediaTooLargeError(f"it is over the limit of {limit} bytes (media.{name})")


def _size(prepared: Prepared) -> int:
    return _ENTRY + sum(len(piece.base64 or b"") for piece in prepared.pieces)
