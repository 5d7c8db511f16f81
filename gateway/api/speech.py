"""What a request for speech as text asks for: its form's fields, checked, and what the model is told to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.api.form import Form
from gateway.api.languages import english_name
from gateway.errors import InvalidRequestError
from gateway.settings import Family

TRANSLATIONS = "/v1/audio/translations"
PATHS = ("/v1/audio/transcriptions", TRANSLATIONS)


class Format(StrEnum):
    """OpenAI's response formats, as far as they can be true here."""

    JSON = "json"
    TEXT = "text"
    VERBOSE = "verbose_json"
    SRT = "srt"
    VTT = "vtt"


#: What OpenAI knows and Gemma cannot do, and why.
_IMPOSSIBLE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "response_format": {"diarized_json": "the model does not tell speakers apart"},
        "timestamp_granularities": {"word": "the model does not tell when a word was said; 'segment' is possible"},
    }
)

#: What such a field may be.
_CHOICES: Mapping[str, Sequence[str]] = MappingProxyType(
    {"response_format": tuple(Format), "timestamp_granularities": ("segment",)}
)

#: Fields that may be given several times.
_LISTS = frozenset({"include", "keywords", "timestamp_granularities"})

#: Sampling fields that vLLM's own route takes as well, passed on where they are given.
_SAMPLING = ("top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty")

#: Tokens for a piece of 30 s that says nothing of it: 34 a second. What gets there is going round in circles.
_MAX_TOKENS = 1024

_PATH = re.compile(r" - at `\$\.(\w+)")


class _Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The form as it is typed; every other field is ignored."""

    model: str | None = None
    language: str | None = None
    to_language: str = "en"
    prompt: str = ""
    keywords: list[str] = []
    hotwords: str = ""
    response_format: Format = Format.JSON
    timestamp_granularities: list[Literal["segment"]] = []
    include: list[str] = []
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    max_completion_tokens: Annotated[int, Meta(gt=0)] = _MAX_TOKENS
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted. `language` and `target` are English names; `target` is None where nothing is translated.

    `sampling` are fields of Chat Completions.
    """

    model: str | None
    response_format: Format
    stream: bool
    language: str | None
    target: str | None
    context: str
    temperature: float
    sampling: Mapping[str, Any]
    logprobs: bool

    def instruction(self, family: Family) -> str:
        """What the model is told, once for each piece."""
        return "\n\n".join(filter(None, (self.context, _TASKS[family](self.language, self.target))))


def read(path: str, form: Form) -> Wish:
    """Reads the fields of a form that was sent to `path`.

    Raises InvalidRequestError naming the field.
    """
    fields = _typed(form.fields)
    _check_together(fields)
    translated = path == TRANSLATIONS
    sampling = {name: value for name in _SAMPLING if (value := getattr(fields, name)) is not None}
    return Wish(
        model=fields.model,
        response_format=fields.response_format,
        stream=fields.stream,
        language=english_name(fields.language, "language") if fields.language else None,
        target=english_name(fields.to_language, "to_language") if translated else None,
        context=_context(fields),
        temperature=fields.temperature,
        sampling={"temperature": fields.temperature, "max_completion_tokens": fields.max_completion_tokens} | sampling,
        logprobs="logprobs" in fields.include,
    )


def _typed(fields: Mapping[str, Sequence[str]]) -> _Fields:
    for name, reasons in _IMPOSSIBLE.items():
        for value in fields.get(name, ()):
            if value in reasons:
                raise InvalidRequestError(f"'{name}' cannot be '{value}': {reasons[value]}.", param=name)
    values = {name: list(given) if name in _LISTS else given[-1] for name, given in fields.items()}
    try:
        return msgspec.convert(values, _Fields, strict=False)
    except msgspec.ValidationError as fault:
        message = str(fault)
        place = _PATH.search(message)
        name = place.group(1) if place else "form"
        hint = f" It may be one of {', '.join(_CHOICES[name])}." if name in _CHOICES else ""
        raise InvalidRequestError(f"'{name}' is invalid: {message.partition(' - at')[0]}.{hint}", param=name) from fault


def _check_together(fields: _Fields) -> None:
    if fields.stream and fields.response_format not in (Format.JSON, Format.TEXT):
        raise InvalidRequestError(
            f"'stream' goes with response_format json or text, not {fields.response_format}.", param="stream"
        )
    if "logprobs" in fields.include and fields.response_format is not Format.JSON:
        raise InvalidRequestError("'include' may ask for logprobs with response_format json alone.", param="include")


def _context(fields: _Fields) -> str:
    """What may help with names and spelling. OpenAI's prompt is nothing to be answered, so the model is told."""
    words = ", ".join(filter(None, (*fields.keywords, fields.hotwords)))
    vocabulary = f"These words may occur in the speech: {words}" if words else ""
    prompt = f"For names, spelling and style go by this text, and do not repeat it: {fields.prompt}"
    return "\n".join(filter(None, (vocabulary, prompt if fields.prompt.strip() else "")))


def _gemma3n(language: str | None, target: str | None) -> str:
    """In the words that vLLM's own route gives Gemma 3n (Gemma3nForConditionalGeneration.get_generation_prompt)."""
    if target is None:
        return f"Transcribe this audio into {language}:" if language else "Transcribe this audio:"
    return (
        f"Translate this audio from {language} into {target}:" if language else f"Translate this audio into {target}:"
    )


def _gemma4(language: str | None, target: str | None) -> str:
    """In the words that Gemma 4's model card recommends, but a translation without the transcription before it."""
    if target is not None:
        source = f" in {language}" if language else ""
        return f"Translate the following speech segment{source} into {target}.\n\n{_rules('translation')}"
    goal = f"in {language} into {language} text" if language else "in its original language"
    return f"Transcribe the following speech segment {goal}.\n\n{_rules('transcription')}"


def _rules(result: str) -> str:
    return (
        "Follow these specific instructions for formatting the answer:\n"
        f"* Only output the {result}, with no newlines.\n"
        "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
        "three."
    )


def text_first(family: Family) -> bool:
    """Whether the instruction stands before the sound, as vLLM's own route has it; Gemma 4's card puts it behind."""
    return family is not Family.GEMMA4


_TASKS = MappingProxyType({Family.GEMMA3: _gemma3n, Family.GEMMA3N: _gemma3n, Family.GEMMA4: _gemma4})
