"""Puts every image, clip and video that a request names into it, checked and decoded, so that engines fetch nothing.

A request without media is passed on as it came, and what the engine reads well stays where it stands.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import msgspec

from gateway.errors import GatewayError, InvalidRequestError, MediaError, MediaTooLargeError
from gateway.ledger import Ledger
from gateway.media import sources, video, wishes
from gateway.media.content import Content, Filling
from gateway.media.decode import Wanted
from gateway.media.fetch import Fetcher
from gateway.media.parts import Dialect, Part
from gateway.media.preparation import Loaded, Preparation, Ready
from gateway.metrics import Metrics
from gateway.protocol import InferenceRequest
from gateway.settings import LongAudio, MediaSettings, Modality, ModelSettings

T = TypeVar("T")

#: Counts more bytes as held.
Hold = Callable[[int], None]

#: Is told the kind of a part and the path of its field, and raises where the caller may not send it.
Check = Callable[[Modality, str], None]

#: How a route writes its content, and the field that holds it; every other route is as Chat Completions.
_CHAT = (Dialect.CHAT, "messages")
_DIALECTS = {
    "/v1/responses": (Dialect.RESPONSES, "input"),
    "/v1/messages": (Dialect.MESSAGES, "messages"),
    "/v1/messages/count_tokens": (Dialect.MESSAGES, "messages"),
}

_TRUNCATED = b"x-gemma-audio-truncated"

#: Pieces of a recording that is not one request's media but many requests.
_ENDLESS = sys.maxsize
_WHOLE = wishes.Options(LongAudio.SPLIT, video_audio=False)


class Inlined(msgspec.Struct, frozen=True):
    """The request to send on, and headers for the reply.

    `tokens` is what its media cost of the context, by modality. `unseen` are images that go on as they came.
    """

    request: InferenceRequest
    headers: tuple[tuple[bytes, bytes], ...] = ()
    tokens: Mapping[Modality, int] = {}
    unseen: tuple[tuple[Part, Loaded, Wanted], ...] = ()


class Media:
    """Fetches and decodes within the limits of `settings`."""

    def __init__(self, settings: MediaSettings, metrics: Metrics, fetcher: Fetcher | None = None) -> None:
        self._settings = settings
        self._ledger = Ledger(settings.max_bytes_in_flight, metrics.media_bytes, "media.max_bytes_in_flight", "media")
        self._fetcher = fetcher or Fetcher(settings, metrics, self._ledger)
        self._preparation = Preparation(settings, metrics, self._fetcher, self._ledger)
        self.warm = self._preparation.warm

    def untouched(self, request: InferenceRequest) -> Inlined | None:
        """The request as it is where there is nothing to do for it; None: see `inline`."""
        raw = request.fields.get(_DIALECTS.get(request.path, _CHAT)[1])
        if (raw is not None and _may_hold_parts(raw)) or not wishes.FIELDS.isdisjoint(request.fields):
            return None
        return Inlined(request)

    async def inline(
        self, request: InferenceRequest, model: ModelSettings, tenant: str | None = None, check: Check | None = None
    ) -> Inlined:
        """The request with its media inlined; the very same object where nothing has to change.

        What engines keep of its media is for `tenant` alone. `check` is told every part before anything is fetched, and
        may raise. Raises MediaError and its kin, or InvalidRequestError, naming the part.
        """
        dialect, name = _DIALECTS.get(request.path, _CHAT)
        raw = request.fields.get(name)
        tree = request.get(name, object) if raw is not None and _may_hold_parts(raw) else None
        if isinstance(tree, list):
            with self._ledger.hold() as held:
                return await self._rewrite(request, model, tenant, Content(tree, name, dialect), check, held.add)
        if not wishes.FIELDS.isdisjoint(request.fields):
            return Inlined(_without_options(request, model))
        return Inlined(request)

    async def clips(self, data: bytes, model: ModelSettings, tenant: str | None = None) -> Ready:
        """A recording of any length as clips that the model hears whole, split at quiet points.

        What is kept of them is for `tenant` alone. Raises MediaError and its kin, without a param.
        """
        wanted = self._wanted(model, tenant, None, _WHOLE, _ENDLESS)
        loaded = await self._preparation.loaded(Modality.AUDIO, data, embedded=False)
        return await self._preparation.prepare(loaded, wanted)

    def holding(self, ready: Ready) -> AbstractContextManager[object]:
        """Counts what was prepared as media in flight, for as long as it is used.

        Raises OverloadedError where that is too much.
        """
        return self._ledger.hold(sum(len(piece.base64 or b"") for piece in ready.prepared.pieces))

    async def explain(self, inlined: Inlined) -> None:
        """Decodes the images that went on unseen, after an engine has refused their request.

        Raises MediaError and its kin, naming the part that is broken, if one is.
        """
        await _all_or_none([self._verify(*image) for image in inlined.unseen])

    async def aclose(self) -> None:
        """Ends the workers and closes connections."""
        await self._preparation.aclose()
        await self._fetcher.aclose()

    async def _rewrite(
        self,
        request: InferenceRequest,
        model: ModelSettings,
        tenant: str | None,
        content: Content,
        check: Check | None,
        hold: Hold,
    ) -> Inlined:
        changed = content.drop_uuids()
        found = content.media()
        if check is not None:
            for part in found:
                check(part.modality, part.slot.where)
        self._check(found, model.modalities)
        options = wishes.options(request, model)
        images = [part.wish() for part in found if part.modality is Modality.IMAGE]
        chosen = wishes.choose(images, _requested(request, content), model.family, model.image_budget)
        wanted = self._wanted(model, tenant, chosen.tokens, options, self._settings.max_clips)
        loaded = await self._load(request, found, hold)
        ready = await self._prepare(found, loaded, wanted)
        self._check_clips(ready)
        filling = Filling(request)
        changed |= content.replace(found, [filling.payloads(part, one) for part, one in zip(found, ready, strict=True)])
        changes: dict[str, Any] = {content.field: content.tree} if changed else {}
        changes |= _for_processor(chosen, found, ready)
        dropped = tuple(wishes.FIELDS.intersection(request.fields))
        if changes or dropped:
            request = request.with_fields(changes, without=dropped, payloads=filling.added)
        unseen = tuple((p, d, wanted) for p, d, one in zip(found, loaded, ready, strict=True) if one.unseen)
        return Inlined(request, (*chosen.headers(), *_warnings(found, ready)), _tokens(ready), unseen)

    def _check(self, found: Sequence[Part], modalities: frozenset[Modality]) -> None:
        """What can be refused before anything is fetched."""
        _check_count("media parts", len(found), self._settings.max_parts, "max_parts")
        kinds = [part.modality for part in found]
        _check_count("images", kinds.count(Modality.IMAGE), self._settings.max_images, "max_images")
        _check_count("audio clips", kinds.count(Modality.AUDIO), self._settings.max_clips, "max_clips")
        _check_count("videos", kinds.count(Modality.VIDEO), self._settings.max_videos, "max_videos")
        for part in found:
            if part.modality not in modalities:
                known = ", ".join(sorted(modalities))
                raise MediaError(
                    f"{part.slot.where}: this model takes no {part.modality}; it takes {known}.", param=part.slot.where
                )

    def _check_clips(self, ready: Sequence[Ready]) -> None:
        count = sum(piece.modality is Modality.AUDIO for one in ready for piece in one.prepared.pieces)
        limit = self._settings.max_clips
        _check_count("audio clips, the pieces of long ones counted,", count, limit, "max_clips")

    def _wanted(
        self, model: ModelSettings, tenant: str | None, tokens: int | None, options: wishes.Options, max_clips: int
    ) -> Wanted:
        settings = self._settings
        return Wanted(
            tenant=tenant,
            family=model.family,
            max_soft_tokens=tokens,
            pan_and_scan=model.pan_and_scan,
            shrink=settings.shrink_images and not model.pan_and_scan,
            long_audio=options.long_audio,
            video_audio=options.video_audio and Modality.AUDIO in model.modalities,
            max_pixels=settings.max_image_pixels,
            max_audio_seconds=settings.max_audio_seconds,
            max_clips=max_clips,
            max_video_seconds=settings.max_video_seconds,
            max_video_frames=min(settings.max_video_frames, options.video_frames or settings.max_video_frames),
        )

    async def _load(self, request: InferenceRequest, found: Sequence[Part], hold: Hold) -> list[Loaded]:
        turn = asyncio.Semaphore(self._settings.max_fetches_per_request)
        return await _all_or_none([self._load_one(request, part, turn, hold) for part in found])

    async def _load_one(self, request: InferenceRequest, part: Part, turn: asyncio.Semaphore, hold: Hold) -> Loaded:
        with _naming(part.param):
            source = part.source()
            payload = request.payload(source.base64) if isinstance(source, sources.Embedded) else b""
            loaded = await self._preparation.load(part.modality, source, payload, turn)
            if not loaded.embedded:
                hold(len(loaded.data))
            return loaded

    async def _prepare(self, found: Sequence[Part], loaded: Sequence[Loaded], wanted: Wanted) -> list[Ready]:
        rate = await self._common_rate(found, loaded, wanted)
        pairs = zip(found, loaded, strict=True)
        return await _all_or_none(
            [
                _named(part, self._preparation.prepare(data, wanted, rate if _is_video(part) else None))
                for part, data in pairs
            ]
        )

    async def _common_rate(self, found: Sequence[Part], loaded: Sequence[Loaded], wanted: Wanted) -> float | None:
        """Frames per second for several videos, of which vLLM takes the times together; one alone keeps its own."""
        videos = [pair for pair in zip(found, loaded, strict=True) if _is_video(pair[0])]
        if len(videos) < 2:
            return None
        lengths = await _all_or_none([_named(part, self._preparation.length(data, wanted)) for part, data in videos])
        return video.common_rate(lengths, wanted.max_video_frames)

    async def _verify(self, part: Part, loaded: Loaded, wanted: Wanted) -> None:
        await _named(part, self._preparation.verify(loaded, wanted))


def _may_hold_parts(raw: msgspec.Raw) -> bool:
    """Whether a list stands inside the list of messages: content parts always do, plain text content never.

    One search for one byte, which no escape can hide, instead of decoding.
    """
    return bytes(raw).find(b"[", 1) > 0


def _requested(request: InferenceRequest, content: Content) -> int | None:
    asked = wishes.of_request(request)
    if asked is not None and content.dialect is Dialect.MESSAGES:
        raise InvalidRequestError("The Messages API has no image budget.", param="max_soft_tokens")
    return asked


def _without_options(request: InferenceRequest, model: ModelSettings) -> InferenceRequest:
    """A text request less the fields that are for the gateway, which are checked all the same."""
    wishes.choose((), wishes.of_request(request), model.family)
    wishes.options(request, model)
    return request.with_fields({}, without=tuple(wishes.FIELDS))


def _for_processor(chosen: wishes.Budget, found: Sequence[Part], ready: Sequence[Ready]) -> dict[str, Any]:
    """What the engine's media processor has to know."""
    changes: dict[str, Any] = {}
    if chosen.tokens is not None:
        changes["mm_processor_kwargs"] = {"max_soft_tokens": chosen.tokens}
    if options := [one.prepared.options for part, one in zip(found, ready, strict=True) if _is_video(part)]:
        changes["media_io_kwargs"] = {"video": options[0]}
    return changes


def _warnings(found: Sequence[Part], ready: Sequence[Ready]) -> Iterator[tuple[bytes, bytes]]:
    cut = [
        f"{part.slot.where}; heard={one.prepared.pieces[-1].seconds:g}; seconds={one.prepared.truncated:.1f}"
        for part, one in zip(found, ready, strict=True)
        if one.prepared.truncated is not None
    ]
    if cut:
        yield _TRUNCATED, ", ".join(cut).encode()


def _tokens(ready: Sequence[Ready]) -> dict[Modality, int]:
    tokens: dict[Modality, int] = {}
    for piece in (piece for one in ready for piece in one.prepared.pieces):
        tokens[piece.modality] = tokens.get(piece.modality, 0) + piece.tokens
    return tokens


def _is_video(part: Part) -> bool:
    return part.modality is Modality.VIDEO


def _check_count(what: str, count: int, limit: int, name: str) -> None:
    if count > limit:
        raise MediaTooLargeError(f"The request has {count} {what}; the limit is {limit} (media.{name}).")


async def _named(part: Part, step: Awaitable[T]) -> T:
    with _naming(part.param):
        return await step


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Says in an error of the inner steps, which do not know it, which field it is about."""
    try:
        yield
    except GatewayError as fault:
        message = f"{param}: {fault.message}."
        raise type(fault)(message, param=param, code=fault.code, retry_after=fault.retry_after) from fault


async def _all_or_none(steps: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
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
