"""Transcriptions and translations: a form with a recording comes in, its text goes out, by way of Chat Completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from gateway.api import exchange, form, routing, speech, transcript
from gateway.api.call import Call
from gateway.api.dialects import Dialect
from gateway.api.edge import Edge
from gateway.api.estimate import BYTES_PER_TOKEN, NOTHING, Estimate
from gateway.api.form import Form
from gateway.api.hearing import Chunk, Hearing
from gateway.api.observation import Observation
from gateway.api.speech import Format, Wish
from gateway.api.transcript import Transcript
from gateway.catalog import Route
from gateway.errors import (
    EngineOverloadedError,
    EngineUnavailableError,
    GatewayError,
    InvalidRequestError,
    MediaTooLargeError,
    SilentMediaError,
)
from gateway.media.inline import Media
from gateway.media.preparation import Ready
from gateway.media.prepared import Piece, Prepared
from gateway.settings import Modality
from gateway.upstream.pool import Engine

#: Tokens of what the model is told to do with a piece.
_INSTRUCTION = 100


@dataclass(frozen=True, slots=True)
class Transcriptions:
    """The ASGI application of speech.PATHS."""

    edge: Edge
    media: Media
    engines: Mapping[str, Engine]

    def __call__(self, call: Call) -> Coroutine[Any, Any, None]:
        """Answers a call."""
        return self.edge.run(self._answer, Dialect.OPENAI, call)

    async def _answer(self, call: Call, seen: Observation) -> None:
        sent = await self._form(call, seen)
        wish = speech.read(seen.path, sent)
        route = routing.resolve(self.edge.catalog, wish.model, None, call, seen)
        self._check(sent, route, seen)
        seen.stream = wish.stream
        await self.edge.charge(seen, NOTHING)
        if not self.edge.admission.enter():
            await self.edge.wait(seen)
        try:
            ready = await self._clips(sent.file, route, self.edge.tenant(seen))
            with self._held(ready):
                await self._expect(ready, wish, seen)
                routes = [each for each in routing.in_order(route, self.engines) if _hears_like(each, route)]
                await self._exchange(ready, wish, routes, call, seen)
        finally:
            self.edge.admission.leave()

    async def _form(self, call: Call, seen: Observation) -> Form:
        body = await self.edge.body(call, seen)
        return await asyncio.to_thread(form.read, call.headers.get(b"content-type"), body)

    def _check(self, sent: Form, route: Route, seen: Observation) -> None:
        """What can be refused before anything is decoded."""
        if seen.caller is not None:
            seen.caller.check_modality(Modality.AUDIO, "file")
        if not _hears(route):
            known = ", ".join(sorted(route.model.modalities))
            raise InvalidRequestError(f"This model takes no audio; it takes {known}.", param="model")
        limit = self.edge.settings.media.max_bytes
        if len(sent.file) > limit:
            raise MediaTooLargeError(f"file: it is over the limit of {limit} bytes (media.max_bytes).", param="file")

    async def _clips(self, data: bytes, route: Route, tenant: str | None) -> Ready:
        """The recording as clips that the model hears whole; one of which nothing can be heard is one silent clip."""
        started = time.monotonic()
        with self._naming_file():
            try:
                ready = await self.media.clips(data, route.model, tenant)
            except SilentMediaError as silence:
                piece = Piece(Modality.AUDIO, "audio/wav", b"", 0, seconds=silence.seconds, silent=True)
                ready = Ready(Prepared((piece,)), key=b"")
        self.edge.metrics.media.observe(time.monotonic() - started)
        return ready

    @contextmanager
    def _held(self, ready: Ready) -> Iterator[None]:
        """Half an hour of sound is 150 MB as an engine gets it: what all requests hold together is bounded."""
        with ExitStack() as stack:
            with self._naming_file():
                stack.enter_context(self.media.holding(ready))
            yield

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        """Says in an error of the inner steps, which do not know it, which field it is about."""
        try:
            yield
        except GatewayError as error:
            self.edge.metrics.media_errors.labels(error.code).inc()
            message = f"file: {error.message}."
            raise type(error)(message, param="file", code=error.code, retry_after=error.retry_after) from error

    async def _expect(self, ready: Ready, wish: Wish, seen: Observation) -> None:
        """Charges the quotas with what the pieces in which something can be heard may cost."""
        pieces = [piece for piece in ready.prepared.pieces if not piece.silent]
        seen.media_tokens = {Modality.AUDIO: sum(piece.tokens for piece in pieces)}
        seen.expected = Estimate(
            prompt=len(pieces) * (len(wish.context) // BYTES_PER_TOKEN + _INSTRUCTION),
            answer=len(pieces) * self.edge.settings.quotas.estimated_completion_tokens,
        )
        if seen.entry is not None:
            await seen.entry.add(seen.media_tokens[Modality.AUDIO] + seen.expected.prompt + seen.expected.answer)

    async def _exchange(self, ready: Ready, wish: Wish, routes: Sequence[Route], call: Call, seen: Observation) -> None:
        """Asks an engine, and where that cannot take the request now, the next, as long as nothing was answered."""
        for route in routes[:-1]:
            try:
                await self._tell(ready, route, wish, call, seen, hold=False)
            except (EngineUnavailableError, EngineOverloadedError):
                if seen.status:
                    raise
            else:
                return
        await self._tell(ready, routes[-1], wish, call, seen, hold=True)

    async def _tell(self, ready: Ready, route: Route, wish: Wish, call: Call, seen: Observation, *, hold: bool) -> None:
        routing.note(route, seen, self.edge.metrics)
        seen.sent = time.monotonic()
        reply = _Reply(Transcript(ready.prepared.pieces), wish, call, seen)
        limits = self.edge.settings.limits
        with exchange.ending_in_event(Dialect.OPENAI, call, seen, limits.retry_after_seconds):
            await self._hearing(route, wish, self.edge.tenant(seen), hold=hold).run(ready, reply.listen, call, seen)
            reply.end()
        if seen.error is not None:
            self.edge.metrics.stream_errors.labels(seen.model).inc()

    def _hearing(self, route: Route, wish: Wish, tenant: str | None, *, hold: bool) -> Hearing:
        limits = self.edge.settings.limits
        family = route.model.family
        salt = {} if tenant is None else {"cache_salt": exchange.cache_salt(tenant)}
        return Hearing(
            engine=self.engines[route.engine],
            metrics=self.edge.metrics,
            instruction=wish.instruction(family),
            text_first=speech.text_first(family),
            question={"model": route.served_name, **wish.sampling, **_details(wish), **salt},
            at_once=limits.max_pieces_at_once,
            retry_after=limits.retry_after_seconds,
            hold=hold,
        )


def _hears(route: Route) -> bool:
    return Modality.AUDIO in route.model.modalities


def _hears_like(route: Route, other: Route) -> bool:
    """Whether it hears, and the same clips."""
    return _hears(route) and route.model.family is other.model.family


def _details(wish: Wish) -> dict[str, Any]:
    """What the engine is to tell beside the text."""
    if wish.response_format is Format.VERBOSE:
        return {"logprobs": True, "return_token_ids": True}
    return {"logprobs": True} if wish.logprobs else {}


class _Reply:
    """What the client gets: events as the text comes, or one body at the end."""

    def __init__(self, text: Transcript, wish: Wish, call: Call, seen: Observation) -> None:
        self._text = text
        self._wish = wish
        self._call = call
        self._seen = seen
        self._headers = routing.headers(cast(Route, seen.route), seen)

    async def listen(self, piece: int, chunk: Chunk) -> None:
        """Takes in what the engine says of piece number `piece`."""
        delta = self._text.add(piece, chunk)
        self._seen.events += 1
        if delta:
            self._seen.saw_bytes()
        if self._wish.stream and (delta or (self._wish.logprobs and chunk.logprobs)):
            self._write(transcript.delta_event(delta, chunk, self._wish))
            await self._call.drained()

    def end(self) -> None:
        """Completes the reply."""
        self._seen.usage = self._text.usage
        if self._wish.stream:
            self._write(transcript.done_event(self._text, self._wish))
            self._call.end()
            return
        content_type, body = transcript.render(self._text, self._wish)
        self._seen.status = 200
        self._call.respond(200, b"content-type: %b\r\n%b" % (content_type, self._headers), body)

    def _write(self, events: bytes) -> None:
        if self._seen.status == 0:
            self._seen.status = 200
            self._call.begin(200, exchange.EVENT_STREAM + self._headers)
        self._call.write(events)
