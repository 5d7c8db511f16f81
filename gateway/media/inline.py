"""Puts every image and clip that a request names into it, checked and decoded, so that engines fetch nothing.

A request without media, and one whose media are already as the engine wants them, is passed on as it came.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pybase64

from gateway.errors import GatewayError, InvalidRequestError, MediaError, MediaTooLargeError
from gateway.media import audio, folder, image, parts, sources, wishes
from gateway.media.fetch import Fetcher
from gateway.media.parts import Dialect, Part, Payload
from gateway.protocol import InferenceRequest
from gateway.settings import Family, MediaSettings, Modality

#: How a route writes its content, and the field that holds it; every other route is as Chat Completions.
_CHAT = (Dialect.CHAT, "messages")
_DIALECTS = {
    "/v1/responses": (Dialect.RESPONSES, "input"),
    "/v1/messages": (Dialect.MESSAGES, "messages"),
    "/v1/messages/count_tokens": (Dialect.MESSAGES, "messages"),
}


@dataclass(frozen=True, slots=True)
class Inlined:
    """The request to send on, and headers for the reply."""

    request: InferenceRequest
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Media:
    """Fetches and decodes within the limits of `settings`."""

    def __init__(self, settings: MediaSettings, fetcher: Fetcher | None = None) -> None:
        self._settings = settings
        self._fetcher = fetcher or Fetcher(settings)
        self._threads = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="media")

    def warm(self) -> None:
        """Gets ready, in a thread, for the first clip."""
        self._threads.submit(audio.warm)

    async def inline(self, request: InferenceRequest, family: Family, modalities: frozenset[Modality]) -> Inlined:
        """The request with its media inlined; the very same object where nothing has to change.

        Raises MediaError and its kin, or InvalidRequestError, naming the part.
        """
        dialect, field = _DIALECTS.get(request.path, _CHAT)
        raw = request.fields.get(field)
        tree = request.get(field, object) if raw is not None and _may_hold_parts(raw) else None
        if isinstance(tree, list):
            return await self._rewrite(request, family, modalities, _Content(tree, field, dialect))
        if not wishes.FIELDS.isdisjoint(request.fields):
            return Inlined(_without_budget(request, family))
        return Inlined(request)

    async def aclose(self) -> None:
        """Ends the threads and closes connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._fetcher.aclose()

    async def _rewrite(
        self, request: InferenceRequest, family: Family, modalities: frozenset[Modality], content: _Content
    ) -> Inlined:
        changed = content.drop_uuids()
        found = content.media()
        self._check(found, modalities)
        chosen = wishes.choose(
            [part.wish() for part in found if part.modality is Modality.IMAGE], _requested(request, content), family
        )
        payloads = await _all_or_none([self._payload(part) for part in found])
        changed |= content.replace(found, payloads)
        changes: dict[str, Any] = {content.field: content.tree} if changed else {}
        if chosen.tokens is not None:
            changes["mm_processor_kwargs"] = {"max_soft_tokens": chosen.tokens}
        dropped = tuple(wishes.FIELDS.intersection(request.fields))
        if not changes and not dropped:
            return Inlined(request)
        return Inlined(request.with_fields(changes, without=dropped), chosen.headers())

    def _check(self, found: Sequence[Part], modalities: frozenset[Modality]) -> None:
        """What can be refused before anything is fetched."""
        if len(found) > self._settings.max_parts:
            raise MediaTooLargeError(
                f"The request has {len(found)} media parts; the limit is {self._settings.max_parts} (media.max_parts)."
            )
        for part in found:
            if part.modality not in modalities:
                known = ", ".join(sorted(modalities))
                raise MediaError(
                    f"{part.slot.where}: this model takes no {part.modality}; it takes {known}.", param=part.slot.where
                )
            if part.modality is Modality.VIDEO:
                raise MediaError(f"{part.slot.where}: video is not supported yet.", param=part.slot.where)

    async def _payload(self, part: Part) -> Payload:
        with _naming(part.param):
            source = sources.Embedded(part.text) if part.embedded else sources.parse(part.text)
            fetched = await self._fetcher.fetch(source.url) if isinstance(source, sources.Remote) else b""
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._prepare, part.modality, source, fetched)

    def _prepare(self, modality: Modality, source: sources.Source, fetched: bytes) -> Payload:
        """Decodes and checks one part; runs in a thread."""
        data = self._data(source, fetched)
        media_type, ready = self._decode(modality, data)
        if ready is data and isinstance(source, sources.Embedded):
            return Payload(media_type, source.base64, source.url)
        return Payload(media_type, pybase64.b64encode_as_string(ready))

    def _data(self, source: sources.Source, fetched: bytes) -> bytes:
        limit = self._settings.max_bytes
        match source:
            case sources.Embedded(text):
                return _from_base64(text, limit)
            case sources.LocalFile(path):
                return folder.read(self._settings.folder, path, limit)
            case sources.Remote():
                return fetched

    def _decode(self, modality: Modality, data: bytes) -> tuple[str, bytes]:
        if modality is Modality.IMAGE:
            return image.prepare(data, self._settings.max_image_pixels)
        return "audio/wav", audio.prepare(data, self._settings.max_audio_seconds)


@dataclass(frozen=True, slots=True)
class _Content:
    """The field that holds content parts, decoded for this request alone, so that parts are replaced in place."""

    tree: list[Any]
    field: str
    dialect: Dialect

    def drop_uuids(self) -> bool:
        return True in [slot.put(parts.without_uuid(slot.content)) for slot in self._slots()]

    def media(self) -> list[Part]:
        read = (parts.read(slot, self.dialect) for slot in self._slots())
        return [part for part in read if part is not None]

    def replace(self, found: Sequence[Part], payloads: Sequence[Payload]) -> bool:
        pairs = zip(found, payloads, strict=True)
        return True in [part.slot.put(parts.render(part, payload, self.dialect)) for part, payload in pairs]

    def _slots(self) -> Iterator[parts.Slot]:
        return parts.slots(self.tree, self.field, self.dialect)


def _may_hold_parts(raw: msgspec.Raw) -> bool:
    """Whether a list stands inside the list of messages: content parts always do, plain text content never.

    One search for one byte, which no escape can hide, instead of decoding.
    """
    return bytes(raw).find(b"[", 1) > 0


def _requested(request: InferenceRequest, content: _Content) -> int | None:
    asked = wishes.of_request(request)
    if asked is not None and content.dialect is Dialect.MESSAGES:
        raise InvalidRequestError("The Messages API has no image budget.", param="max_soft_tokens")
    return asked


def _without_budget(request: InferenceRequest, family: Family) -> InferenceRequest:
    """A text request less its budget, which is checked all the same."""
    wishes.choose((), wishes.of_request(request), family)
    return request.with_fields({}, without=tuple(wishes.FIELDS))


def _from_base64(text: str, limit: int) -> bytes:
    """Decodes standard base64, strictly, as vLLM does.

    Raises MediaTooLargeError over `limit` bytes before decoding, MediaError where it is not base64.
    """
    if len(text) // 4 * 3 > limit + 2:
        raise MediaTooLargeError(f"it is over the limit of {limit} bytes (media.max_bytes)")
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("the data is not valid base64") from None


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Says in an error of the inner steps, which do not know it, which field it is about."""
    try:
        yield
    except GatewayError as fault:
        raise type(fault)(f"{param}: {fault.message}.", param=param, code=fault.code) from fault


async def _all_or_none(steps: Sequence[Coroutine[Any, Any, Payload]]) -> list[Payload]:
    """The results in order; at the first error, or when cancelled, the others are cancelled and waited for.

    Not a task group: that would wrap the error, and the edge renders errors by class.
    """
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
