"""Passes an engine's reply on to the client: bytes as they come, errors translated, usage read in passing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from gateway.api import exchange
from gateway.api.call import Call
from gateway.api.dialects import Dialect, body_event
from gateway.api.observation import Observation
from gateway.chunked import CRLF, SIZE_LINES, framed
from gateway.errors import EngineFailedError
from gateway.settings import Modality
from gateway.upstream import sse
from gateway.upstream.pool import Reply

logger = logging.getLogger(__name__)

#: Where the usage tells what the prompt's tokens were.
DETAILS = {Dialect.OPENAI: b"prompt_tokens_details", Dialect.RESPONSES: b"input_tokens_details"}

_SHORT = len(SIZE_LINES)

#: The engine's name for the model as it stands in a reply, and what is put in its place; None: it stays.
Rename = tuple[bytes, bytes] | None


class Relay:
    """How one reply is passed on.

    `headers` are lines. `hide_usage`: the gateway asked for the usage event, the client did not, so it must not see it.
    `media_tokens` is added to the usage. `rename` is how the engine's name for the model stands in a reply, and what is
    put in its place. `tells_speed`: the usage says how fast the answer came.
    """

    __slots__ = (
        "_aligned",
        "_aligner",
        "_call",
        "_dialect",
        "_events",
        "_headers",
        "_hide_usage",
        "_media_tokens",
        "_rename",
        "_reply",
        "_retry_after",
        "_seen",
        "_tells_speed",
    )

    def __init__(
        self,
        call: Call,
        seen: Observation,
        dialect: Dialect,
        headers: bytes,
        hide_usage: bool,
        media_tokens: Mapping[Modality, int],
        rename: Rename,
        retry_after: float,
        tells_speed: bool = False,
    ) -> None:
        self._call = call
        self._seen = seen
        self._dialect = dialect
        self._headers = headers
        self._hide_usage = hide_usage
        self._media_tokens = media_tokens
        self._rename = rename
        self._retry_after = retry_after
        self._tells_speed = tells_speed and dialect in DETAILS

    async def run(self, reply: Reply) -> None:
        """Passes `reply` on to its end.

        Raises GatewayError, only as long as nothing was sent, where the engine's answer is a fault of ours.
        """
        status = reply.status
        content_type = reply.headers.get(b"content-type", b"application/json")
        if status == 200 and content_type.startswith(b"text/event-stream"):
            await self._stream(reply)
            return
        body = reply.whole()
        if body is None:
            body = await reply.read_all()
        seen = self._seen
        seen.first_byte = time.monotonic()
        if status == 200:
            seen.usage = sse.usage_of(body)
            body = self._with_media_tokens(body) if self._media_tokens else body
            body = self._with_speed(body) if self._tells_speed else body
            body = body if self._rename is None else body.replace(*self._rename)
        else:
            exchange.raise_fault(reply, body, seen, self._retry_after)
            body = exchange.refusal(status, body, self._dialect, seen) if status >= 400 else body
        seen.status = status
        if self._call.begun:
            # Comments were sent while the engine was silent.
            self._call.write(body_event(self._dialect, body))
            self._call.end()
            return
        self._call.respond(status, b"content-type: %b\r\n%b" % (content_type, self._headers), body)

    async def _stream(self, reply: Reply) -> None:
        call, seen = self._call, self._seen
        if not call.begun:
            call.begin(200, exchange.EVENT_STREAM + self._headers)
        seen.status = 200
        self._reply = reply
        self._aligner = sse.EventAligner()
        self._aligned = False
        self._events = 0
        call.on_drain = reply.resume
        with exchange.ending_in_event(self._dialect, call, seen, self._retry_after):
            try:
                await reply.relay(self._pass_on)
            except _EndedByEngineError:
                call.end()
                return
            finally:
                seen.events = self._events
            if rest := self._aligner.flush():
                call.write(rest)
            call.end()

    def _pass_on(self, data: bytes) -> None:
        """What the engine has sent, as far as it is whole events. For each token: every call in here counts."""
        if (
            self._aligned
            and 0 < len(data) - 2 == data.find(sse.END)
            and sse.USAGE_MARK not in data
            and sse.ERROR_MARK not in data
            and (write := self._call.write_framed) is not None
        ):
            # One event of an answer that has begun, with nothing in it but the name to be changed.
            if self._rename is not None:
                data = data.replace(*self._rename)
            self._events += 1
            call = self._call
            call.silent = False
            size = len(data)
            # `framed`, less the call.
            write(b"".join((SIZE_LINES[size], data, CRLF)) if size < _SHORT else framed(data))
            if call.blocked:
                self._reply.pause()
            return
        self._pass_on_events(data)

    def _pass_on_events(self, data: bytes) -> None:
        if data.endswith(sse.END) and not self._aligner.rest:
            events = data
        elif not (events := self._aligner.feed(data)):
            return
        call, seen = self._call, self._seen
        # Comments that only keep the connection alive are no answer yet.
        if seen.first_byte is None and b"data:" in events:
            seen.first_byte = time.monotonic()
        self._aligned = not self._aligner.rest and seen.first_byte is not None
        if sse.USAGE_MARK in events:
            events = self._usage(events)
        if self._rename is not None:
            # One search, no parsing: vLLM serializes without blanks, and inside of a string its quotes are escaped.
            events = events.replace(*self._rename)
        if sse.ERROR_MARK in events and sse.has_error(events):
            self._end_at_error(events)
        if events:
            self._events += events.count(sse.END)
            call.write(events)
            if call.blocked:
                self._reply.pause()

    def _end_at_error(self, events: bytes) -> None:
        """Passes on what came before vLLM's error event, and the event itself if it is for the client.

        Raises what ends the relaying: EngineFailedError in place of an event that tells of the engine's inside.
        """
        before, event = sse.split_error(events)
        if sse.blames_client(event):
            self._seen.error = "invalid_request"
            self._call.write(before + event)
            raise _EndedByEngineError
        logger.error("engine %s failed in mid-stream: %s", self._seen.engine, event[:500].decode(errors="replace"))
        if before:
            self._call.write(before)
        raise EngineFailedError("The engine failed while it was answering.")

    def _usage(self, events: bytes) -> bytes:
        document = sse.last_event_with_usage(events)
        self._seen.usage = (document and sse.usage_of(document)) or self._seen.usage
        if self._hide_usage:
            return sse.without_usage_only(events)
        events = self._with_media_tokens(events) if self._media_tokens else events
        return self._with_speed(events) if self._tells_speed else events

    def _with_media_tokens(self, text: bytes) -> bytes:
        """OpenAI's `image_tokens` and the like beside vLLM's own figures; Anthropic's usage has no such thing."""
        details = DETAILS.get(self._dialect)
        return sse.with_media_tokens(text, details, self._media_tokens) if details else text

    def _with_speed(self, text: bytes) -> bytes:
        """As the gateway saw it. A stream's first token comes after the prompt has been read; where an answer comes as
        a whole, nobody can tell the two apart here.
        """
        seen = self._seen
        tokens = seen.usage.completion if seen.usage is not None else 0
        started = seen.started if seen.sent is None else seen.sent
        now = time.monotonic()
        if not seen.stream or seen.first_byte is None:
            return sse.with_speed(text, tokens, now - started)
        return sse.with_speed(text, tokens - 1, now - seen.first_byte, seen.first_byte - started)


class _EndedByEngineError(Exception):
    """The engine's last word has been passed on: the rest is dropped."""
