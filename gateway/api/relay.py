"""Passes an engine's reply on to the client: bytes as they come, errors translated, usage read in passing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from gateway.api import exchange
from gateway.api.client import Send, respond
from gateway.api.dialects import Dialect
from gateway.api.observation import Observation
from gateway.errors import EngineFailedError
from gateway.settings import Modality
from gateway.upstream import sse
from gateway.upstream.pool import Reply

logger = logging.getLogger(__name__)

#: Where the usage tells what the prompt's tokens were.
DETAILS = {Dialect.OPENAI: b"prompt_tokens_details", Dialect.RESPONSES: b"input_tokens_details"}

#: The engine's name for the model as it stands in a reply, and what is put in its place; None: it stays.
Rename = tuple[bytes, bytes] | None


class Relay(msgspec.Struct, frozen=True):
    """How one reply is to be passed on.

    `hide_usage`: the gateway asked for the usage event, the client did not, so it must not see it. `media_tokens` is
    added to the usage. `rename` is how the engine's name for the model stands in a reply, and what is put in its place.
    """

    dialect: Dialect
    headers: tuple[tuple[bytes, bytes], ...]
    hide_usage: bool
    media_tokens: Mapping[Modality, int]
    rename: Rename
    retry_after: float

    async def run(self, reply: Reply, send: Send, seen: Observation) -> None:
        """Passes `reply` on to its end.

        Raises GatewayError, only as long as nothing was sent, where the engine's answer is a fault of ours.
        """
        content_type = reply.headers.get(b"content-type", b"application/json")
        if reply.status == 200 and content_type.startswith(b"text/event-stream"):
            await self._stream(reply, send, seen)
            return
        body = await reply.read_all()
        seen.saw_bytes()
        exchange.raise_fault(reply, body, seen, self.retry_after)
        if reply.status == 200:
            seen.usage = sse.usage_of(body)
            body = self._renamed(self._with_media_tokens(body))
        elif reply.status >= 400:
            body = exchange.refusal(reply.status, body, self.dialect, seen)
        seen.status = reply.status
        await respond(send, reply.status, body, [(b"content-type", content_type), *self.headers])

    async def _stream(self, reply: Reply, send: Send, seen: Observation) -> None:
        seen.status = 200
        headers = [*exchange.EVENT_STREAM, *self.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with exchange.ending_in_event(self.dialect, send, seen, self.retry_after):
            await self._events(reply, send, seen)

    async def _events(self, reply: Reply, send: Send, seen: Observation) -> None:
        aligner = sse.EventAligner()
        while chunk := await reply.read():
            events = aligner.feed(chunk)
            # Comments that only keep the connection alive are no answer yet.
            if seen.first_byte is None and b"data:" in events:
                seen.saw_bytes()
            if sse.USAGE_MARK in events:
                events = self._usage(events, seen)
            events = self._renamed(events)
            if sse.has_error(events):
                await self._end_at_error(events, send, seen)
                return
            if events:
                seen.events += events.count(sse.END)
                await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": aligner.flush()})

    async def _end_at_error(self, events: bytes, send: Send, seen: Observation) -> None:
        """Passes on what came before vLLM's error event, and the event itself if it is for the client.

        Raises EngineFailedError in place of an event that tells of the engine's inside.
        """
        before, event = sse.split_error(events)
        if sse.blames_client(event):
            seen.error = "invalid_request"
            await send({"type": "http.response.body", "body": before + event})
            return
        logger.error("engine %s failed in mid-stream: %s", seen.engine, event[:500].decode(errors="replace"))
        if before:
            await send({"type": "http.response.body", "body": before, "more_body": True})
        raise EngineFailedError("The engine failed while it was answering.")

    def _usage(self, events: bytes, seen: Observation) -> bytes:
        document = sse.last_event_with_usage(events)
        seen.usage = (document and sse.usage_of(document)) or seen.usage
        return sse.without_usage_only(events) if self.hide_usage else self._with_media_tokens(events)

    def _renamed(self, text: bytes) -> bytes:
        """One search, no parsing: vLLM serializes without blanks, and inside of a string its quotes are escaped."""
        return text if self.rename is None else text.replace(*self.rename)

    def _with_media_tokens(self, text: bytes) -> bytes:
        """OpenAI's `image_tokens` and the like beside vLLM's own figures; Anthropic's usage has no such thing."""
        details = DETAILS.get(self.dialect)
        return sse.with_media_tokens(text, details, self.media_tokens) if details and self.media_tokens else text
