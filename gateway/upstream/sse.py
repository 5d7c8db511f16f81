"""Server-sent events as bytes: whole events out of pieces, and the few that the gateway has to notice."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gateway.errors import EngineFailedError
from gateway.settings import Modality

#: A single event longer than this, in bytes, is not one of vLLM's.
MAX_EVENT = 16 * 1024 * 1024

#: vLLM serializes without blanks, so these bytes cannot occur inside a JSON string: its quotes are escaped there.
USAGE_MARK = b'"usage":{'
ERROR_MARKS = (b'data: {"error":', b"event: error\n")
#: In all of those: one search where there is no error.
ERROR_MARK = b"error"
EMPTY_CHOICES_MARK = b'"choices":[]'
END = b"\n\n"


class EventAligner:
    """Cuts a stream of bytes at the ends of events, so that a stream that breaks off never ends inside one."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events known so far and not handed out yet; maybe b"".

        Raises EngineFailedError where an event does not end within MAX_EVENT bytes.
        """
        if not self.rest and chunk.endswith(END):
            return chunk
        data = self.rest + chunk
        cut = data.rfind(END)
        cut = cut + len(END) if cut >= 0 else 0
        self.rest = data[cut:]
        if len(self.rest) > MAX_EVENT:
            raise EngineFailedError("The engine sent an event without an end.")
        return data[:cut]

    def flush(self) -> bytes:
        """What is left once the stream has ended properly."""
        rest, self.rest = self.rest, b""
        return rest


def has_error(events: bytes) -> bool:
    """Whether an error event is among whole events."""
    return any(mark in events for mark in ERROR_MARKS)


def split_error(events: bytes) -> tuple[bytes, bytes]:
    """The events before the first error event, and that event; what vLLM sends after it (`[DONE]`) is dropped."""
    start = min(at for mark in ERROR_MARKS if (at := events.find(mark)) >= 0)
    return events[:start], events[start : events.find(END, start) + len(END)]


class _Error(msgspec.Struct):
    code: int | str | None = None
    type: str | None = None


class _ErrorEnvelope(msgspec.Struct):
    error: _Error


def blames_client(error_event: bytes) -> bool:
    """Whether an error event is about the request: its message is for the client, unlike that of a fault inside."""
    try:
        error = msgspec.json.decode(data_of(error_event), type=_ErrorEnvelope).error
    except msgspec.MsgspecError:
        return False
    return error.type == "invalid_request_error" or (isinstance(error.code, int) and 400 <= error.code < 500)


def without_usage_only(events: bytes) -> bytes:
    """Whole events less those that carry usage and no choices, which only a client that asked for them expects."""
    kept = [e for e in events.split(END) if not (USAGE_MARK in e and EMPTY_CHOICES_MARK in e)]
    return END.join(kept)


def with_media_tokens(text: bytes, details: bytes, tokens: Mapping[Modality, int]) -> bytes:
    """A reply, or whole events, whose usage tells the tokens of media by `details`, as `image_tokens` and so on."""
    counts = b",".join(b'"%b_tokens":%d' % (kind.encode(), count) for kind, count in tokens.items())
    key = b'"' + details + b'":'
    told, found = re.subn(key + rb'(?:null|\{(?=("?)))', lambda at: _opened(key, counts, at), text)
    return told if found else text.replace(USAGE_MARK, USAGE_MARK + key + b"{" + counts + b"},")


def with_speed(text: bytes, tokens: int, seconds: float, to_first: float | None = None) -> bytes:
    """A reply, or whole events, whose usage tells the speed at which `tokens` came in `seconds`, and the seconds until
    the first of them, where that is known.
    """
    told = b"" if to_first is None else b'"time_to_first_token_ms":%.1f,' % (to_first * 1000)
    if tokens > 0 and seconds > 0:
        told += b'"tokens_per_second":%.1f,' % (tokens / seconds)
    return text.replace(USAGE_MARK, USAGE_MARK + told)


def _opened(key: bytes, counts: bytes, at: re.Match[bytes]) -> bytes:
    """The key with an object that begins with `counts`; one that was there goes on behind them."""
    if at.group(1) is None:
        return key + b"{" + counts + b"}"
    return key + b"{" + counts + (b"," if at.group(1) else b"")


def data_of(event: bytes) -> bytes:
    """The data field of one event that has one such field on one line, as vLLM's have."""
    at = event.find(b"data:")
    return event[at + 5 :].split(b"\n", 1)[0].strip() if at >= 0 else b""


def last_event_with_usage(events: bytes) -> bytes | None:
    """The data of the last event that carries usage."""
    at = events.rfind(USAGE_MARK)
    if at < 0:
        return None
    start = events.rfind(END, 0, at)
    return data_of(events[start + len(END) if start >= 0 else 0 :])


class PromptDetails(msgspec.Struct):
    """What of the prompt came from the prefix cache, and what was media (tokens)."""

    cached_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class Usage(msgspec.Struct):
    """Tokens of one request, under OpenAI's two spellings and Anthropic's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    #: Anthropic's, which `input_tokens` leaves out.
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def prompt(self) -> int:
        cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return self.prompt_tokens or (self.input_tokens or 0) + cached

    @property
    def completion(self) -> int:
        return self.completion_tokens or self.output_tokens or 0

    @property
    def cached(self) -> int:
        """Tokens of the prompt that came from the prefix cache."""
        details = self.prompt_tokens_details
        return (details and details.cached_tokens) or self.cache_read_input_tokens or 0

    @property
    def media(self) -> dict[str, int]:
        """Tokens of the prompt by modality."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.multimodal_tokens) or {}


class _Inner(msgspec.Struct):
    usage: Usage | None = None


class _Envelope(msgspec.Struct):
    usage: Usage | None = None
    response: _Inner | None = None


_decoder = msgspec.json.Decoder(_Envelope)


def usage_of(document: bytes) -> Usage | None:
    """The usage that a reply or an event carries, also inside `response`, as the Responses API nests it."""
    try:
        envelope = _decoder.decode(document)
    except msgspec.MsgspecError:
        return None
    return envelope.usage or (envelope.response.usage if envelope.response else None)
