"""Asks an engine what is said in each piece of a clip: a few at a time, over Chat Completions, the answers in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.api import exchange
from gateway.api.call import Call
from gateway.api.observation import Observation
from gateway.errors import EngineFailedError, GatewayError, InvalidRequestError, NotFoundError, PayloadTooLargeError
from gateway.media.preparation import Ready
from gateway.media.prepared import Piece
from gateway.metrics import Metrics
from gateway.protocol import Buffer, InferenceRequest, mark
from gateway.upstream import sse
from gateway.upstream.pool import Engine, Reply

logger = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"

#: What vLLM ends a stream with, unless it failed.
DONE = b"data: [DONE]\n\n"

#: A refusal's class by its status; every other is a plain InvalidRequestError.
_REFUSALS = {404: NotFoundError, 413: PayloadTooLargeError}


class Logprob(msgspec.Struct, frozen=True):
    """A token that was chosen, its bytes, and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[Logprob] | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of a streamed chat completion, as far as it is needed."""

    choices: list[_Choice] = []
    usage: sse.Usage | None = None

    @property
    def text(self) -> str:
        return "".join(choice.delta.content or "" for choice in self.choices)

    @property
    def logprobs(self) -> list[Logprob]:
        return [each for choice in self.choices if choice.logprobs for each in choice.logprobs.content or ()]

    @property
    def tokens(self) -> list[int]:
        return [token for choice in self.choices for token in choice.token_ids or ()]


class _Error(msgspec.Struct, frozen=True):
    message: str = "The engine refused the request."
    param: str | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error


_decode = msgspec.json.Decoder(Chunk).decode

#: Is told each chunk with the number of its piece, in order.
Listener = Callable[[int, Chunk], Awaitable[None]]

#: What the engine says of one piece; None is the end.
Feed = asyncio.Queue[Chunk | None]


@dataclass(frozen=True, slots=True)
class _Question:
    """One piece, the engine's key for it, the headers of its request, and where the answer goes."""

    piece: Piece
    uuid: str
    headers: bytes
    answer: Feed = field(default_factory=asyncio.Queue)


@dataclass(frozen=True, slots=True)
class Hearing:
    """How the pieces of one request are asked. `question` holds the fields of Chat Completions beside the messages."""

    engine: Engine
    metrics: Metrics
    instruction: str
    text_first: bool
    question: Mapping[str, Any]
    at_once: int
    retry_after: float
    hold: bool

    async def run(self, ready: Ready, listener: Listener, call: Call, seen: Observation) -> None:
        """Asks about all pieces, at most `at_once` at a time, and tells `listener`; the first failure ends them all.

        Of a silent piece nothing is asked. What the engine says ahead of the listener is kept, a few kilobytes of text
        for a piece. Raises GatewayError.
        """
        questions = [
            _Question(piece, ready.uuid(index), exchange.headers(call, seen, index))
            for index, piece in enumerate(ready.prepared.pieces)
        ]
        turns = asyncio.Semaphore(self.at_once)
        try:
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(self._take_turn(turns, question, seen))
                await _listen(questions, listener)
        except ExceptionGroup as faults:
            # The edge tells errors by their class.
            raise faults.exceptions[0] from faults

    async def _take_turn(self, turns: asyncio.Semaphore, question: _Question, seen: Observation) -> None:
        if not question.piece.silent:
            async with turns:
                await self._ask(question, seen)
        question.answer.put_nowait(None)

    async def _ask(self, question: _Question, seen: Observation) -> None:
        with (
            exchange.counted(self.metrics, self.engine.name),
            await self.engine.send(
                b"POST", CHAT, self._body(question), question.headers, model=self.question["model"], hold=self.hold
            ) as reply,
        ):
            if reply.status != 200:
                body = await reply.read_all()
                exchange.raise_fault(reply, body, seen, self.retry_after)
                raise _refusal(reply.status, body)
            await _pass_on(reply, question.answer, seen)

    def _body(self, question: _Question) -> Sequence[Buffer]:
        url = f"data:{question.piece.media_type};base64,{mark(0)}"
        sound = {"type": "audio_url", "audio_url": {"url": url}, "uuid": question.uuid}
        text = {"type": "text", "text": self.instruction}
        content = [text, sound] if self.text_first else [sound, text]
        fields = {
            **self.question,
            "messages": [{"role": "user", "content": content}],
            "chat_template_kwargs": {"enable_thinking": False},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        payloads = (question.piece.base64 or b"",)
        return InferenceRequest(CHAT, {}, None).with_fields(fields, payloads=payloads).encode()


async def _pass_on(reply: Reply, feed: Feed, seen: Observation) -> None:
    """Raises GatewayError where the reply tells of a failure or ends before its end."""
    aligner = sse.EventAligner()
    finished = False
    while data := await reply.read():
        events = aligner.feed(data)
        finished = finished or events.endswith(DONE)
        for chunk in _read(events, seen):
            feed.put_nowait(chunk)
    if not finished:
        raise EngineFailedError("The engine ended its answer early.")


async def _listen(questions: Sequence[_Question], listener: Listener) -> None:
    for index, question in enumerate(questions):
        while (chunk := await question.answer.get()) is not None:
            await listener(index, chunk)


def _read(events: bytes, seen: Observation) -> list[Chunk]:
    """Whole events, decoded. Raises GatewayError where one tells of a failure."""
    if sse.has_error(events):
        raise _failure(sse.split_error(events)[1], seen)
    documents = (sse.data_of(event) for event in events.split(sse.END))
    try:
        return [_decode(document) for document in documents if document and document != b"[DONE]"]
    except msgspec.MsgspecError as fault:
        raise EngineFailedError("The engine sent an event that is no chat completion.") from fault


def _failure(event: bytes, seen: Observation) -> GatewayError:
    if sse.blames_client(event):
        return _refusal(400, sse.data_of(event))
    logger.error("engine %s failed in mid-stream: %s", seen.engine, event[:500].decode(errors="replace"))
    return EngineFailedError("The engine failed while it was answering.")


def _refusal(status: int, body: bytes) -> GatewayError:
    """The engine's own refusal, which is for the client."""
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.MsgspecError:
        error = _Error()
    return _REFUSALS.get(status, InvalidRequestError)(error.message, param=error.param)
