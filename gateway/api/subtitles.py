"""Writes subtitles, SubRip and WebVTT: one cue for each segment, at the segment's own times."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Protocol


class Cue(Protocol):
    """What is shown from `start` to `end`, in seconds."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...

    @property
    def text(self) -> str: ...


def srt(cues: Iterable[Cue]) -> str:
    """SubRip, as FFmpeg and players read it."""
    blocks = [f"{n}\n{_span(cue, ',')}\n{_line(cue.text)}\n\n" for n, cue in enumerate(cues, 1)]
    return "".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1/; what would be markup in a text is escaped."""
    blocks = [f"{_span(cue, '.')}\n{escape(_line(cue.text), quote=False)}\n\n" for cue in cues]
    return "".join(["WEBVTT\n\n", *blocks])


def _line(text: str) -> str:
    """Without line breaks: an empty line would end the cue."""
    return " ".join(text.split())


def _span(cue: Cue, decimal: str) -> str:
    return f"{_clock(cue.start, decimal)} --> {_clock(cue.end, decimal)}"


def _clock(seconds: float, decimal: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{decimal}{rest % 1000:03}"
