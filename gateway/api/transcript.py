"""A transcript out of the pieces' texts: joined as they come, and written in each of OpenAI's response formats."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.api import subtitles
from gateway.api.hearing import Chunk, Logprob
from gateway.api.speech import Format, Wish
from gateway.media.prepared import Piece
from gateway.upstream.sse import PromptDetails, Usage

#: How Unicode's names of letters begin that are written without blanks between words.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "THAI", "LAO", "KHMER", "MYANMAR")

#: Whisper's unit of `seek`: mel frames of 10 ms.
_FRAMES_PER_SECOND = 100


class Joiner:
    """Makes one text out of pieces: a blank between two, none where the script has none, no other white space."""

    def __init__(self) -> None:
        self._piece = -1
        self._fresh = True
        self._held = ""
        self._last = ""

    def add(self, piece: int, text: str) -> str:
        """What joins the whole now that `text` has come for piece number `piece`; numbers never go down."""
        if piece != self._piece:
            self._piece, self._fresh, self._held = piece, True, ""
        text = self._held + text
        visible = text.rstrip()
        self._held = text[len(visible) :]
        return self._begin(visible.lstrip()) if self._fresh else self._go_on(visible)

    def _begin(self, text: str) -> str:
        if not text:
            self._held = ""
            return ""
        self._fresh = False
        blank = "" if not self._last or _unspaced(self._last) or _unspaced(text[0]) else " "
        return blank + self._go_on(text)

    def _go_on(self, text: str) -> str:
        self._last = text[-1:] or self._last
        return text


def _unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_UNSPACED)


@dataclass(slots=True)
class Segment:
    """One piece of the clip, filled in as its text comes. Times are seconds of the clip."""

    start: float
    end: float
    said: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.said).strip()

    def avg_logprob(self) -> float | None:
        """The mean over the tokens; None where the engine told none."""
        return sum(each.logprob for each in self.logprobs) / len(self.logprobs) if self.logprobs else None

    def compression_ratio(self) -> float:
        """As Whisper defines it; high where the text goes round in circles."""
        text = self.text.encode()
        return len(text) / len(zlib.compress(text))


class Transcript:
    """What was said in one clip, filled in chunk by chunk."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.segments = [Segment(piece.start, piece.start + piece.seconds) for piece in pieces]
        self.usage = _NOTHING
        self._joiner = Joiner()
        self._text: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def seconds(self) -> float:
        """How long the clip is: its pieces lack nothing of it."""
        return self.segments[-1].end if self.segments else 0.0

    @property
    def spoken(self) -> list[Segment]:
        """The segments in which something was said."""
        return [segment for segment in self.segments if segment.text]

    @property
    def logprobs(self) -> list[Logprob]:
        return [each for segment in self.segments for each in segment.logprobs]

    def add(self, piece: int, chunk: Chunk) -> str:
        """Takes in what came for piece number `piece`; what it adds to the text."""
        segment = self.segments[piece]
        segment.said.append(chunk.text)
        segment.tokens += chunk.tokens
        segment.logprobs += chunk.logprobs
        if chunk.usage is not None:
            self.usage = _sum(self.usage, chunk.usage)
        delta = self._joiner.add(piece, chunk.text)
        self._text.append(delta)
        return delta


_NOTHING = Usage(prompt_tokens=0, completion_tokens=0)


def _sum(one: Usage, other: Usage) -> Usage:
    media = {kind: one.media.get(kind, 0) + other.media.get(kind, 0) for kind in {**one.media, **other.media}}
    return Usage(
        prompt_tokens=one.prompt + other.prompt,
        completion_tokens=one.completion + other.completion,
        prompt_tokens_details=PromptDetails(multimodal_tokens=media) if media else None,
    )


def render(transcript: Transcript, wish: Wish) -> tuple[bytes, bytes]:
    """The reply's content type and body."""
    match wish.response_format:
        case Format.JSON:
            return _JSON, msgspec.json.encode(_plain(transcript, wish))
        case Format.VERBOSE:
            return _JSON, msgspec.json.encode(_verbose(transcript, wish))
        case Format.TEXT:
            return _TEXT, f"{transcript.text}\n".encode()
        case Format.SRT:
            return _TEXT, subtitles.srt(transcript.spoken).encode()
        case Format.VTT:
            return _TEXT, subtitles.vtt(transcript.spoken).encode()


_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"


def delta_event(text: str, chunk: Chunk, wish: Wish) -> bytes:
    """OpenAI's `transcript.text.delta`."""
    return _event(
        {"type": "transcript.text.delta", "delta": text} | ({"logprobs": chunk.logprobs} if wish.logprobs else {})
    )


def done_event(transcript: Transcript, wish: Wish) -> bytes:
    """OpenAI's `transcript.text.done`, which ends a stream."""
    return _event({"type": "transcript.text.done", **_plain(transcript, wish)})


def _event(document: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (document["type"].encode(), msgspec.json.encode(document))


def _plain(transcript: Transcript, wish: Wish) -> dict[str, Any]:
    logprobs = {"logprobs": transcript.logprobs} if wish.logprobs else {}
    return {"text": transcript.text, **logprobs, "usage": _tokens(transcript.usage)}


def _tokens(usage: Usage) -> dict[str, Any]:
    audio = usage.media.get("audio", 0)
    return {
        "type": "tokens",
        "input_tokens": usage.prompt,
        "input_token_details": {"audio_tokens": audio, "text_tokens": usage.prompt - audio},
        "output_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }


def _verbose(transcript: Transcript, wish: Wish) -> dict[str, Any]:
    """Without what nobody knows: the language is the one that was asked for, and there are no times of words."""
    language = wish.target or wish.language
    return {
        "task": "translate" if wish.target else "transcribe",
        "language": language and language.lower(),
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
        "segments": [_segment(index, segment, wish) for index, segment in enumerate(transcript.spoken)],
        "usage": {"type": "duration", "seconds": round(transcript.seconds, 3)},
    }


def _segment(index: int, segment: Segment, wish: Wish) -> dict[str, Any]:
    return {
        "id": index,
        "seek": round(segment.start * _FRAMES_PER_SECOND),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": wish.temperature,
        "avg_logprob": segment.avg_logprob(),
        "compression_ratio": segment.compression_ratio(),
        "no_speech_prob": None,
    }
