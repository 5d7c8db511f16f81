"""How many tokens a request may cost, before it is known: what quotas are charged with in advance. Pure."""

from __future__ import annotations

import re

import msgspec

from gateway.protocol import InferenceRequest
from gateway.settings import Endpoint

#: UTF-8 bytes of a body for each token of its text. Gemma's vocabulary takes about 4 letters of English to a token, and
#: 3-byte characters one by one or two by two; the JSON around the text makes up for what is finer.
BYTES_PER_TOKEN = 4

#: Base64 that was too short to be carved out is a medium all the same, whose tokens are known later.
_SHORT_MEDIA = re.compile(rb"base64,[A-Za-z0-9+/=]+")

#: Fields that say how long an answer may get, by what wins.
_ANSWER_LENGTHS = ("max_completion_tokens", "max_tokens", "max_output_tokens")

#: Fields that say how many answers there are to be.
_CHOICES = ("n", "best_of")

#: Routes that generate nothing, and those that ask nothing of the model at all.
_NO_ANSWER = frozenset({Endpoint.EMBEDDINGS})
_FREE = frozenset({Endpoint.TOKENIZE, Endpoint.DETOKENIZE, Endpoint.COUNT_TOKENS})

#: Tokens; nothing is charged more. Numbers with so many digits are beyond.
_MOST = 10**9
_DIGITS = 10


class Estimate(msgspec.Struct, frozen=True):
    """Tokens of the prompt's text, and of the answer at most."""

    prompt: int = 0
    answer: int = 0


NOTHING = Estimate()


def estimate(request: InferenceRequest, text_bytes: int, answer: int, context: int | None = None) -> Estimate:
    """What a request may cost without its media.

    `text_bytes` is the size of its body without them; `answer` is for one that does not say how long it may get, and
    `context` what it can get at most, where that is known. All in tokens but the first.
    """
    if request.path in _FREE:
        return NOTHING
    prompt = (text_bytes - _short_media(request)) // BYTES_PER_TOKEN + 1
    if request.path in _NO_ANSWER:
        return Estimate(prompt)
    return Estimate(prompt, _answer_tokens(request, answer, context or _MOST))


def _short_media(request: InferenceRequest) -> int:
    """Bytes of base64 in the request that were too few to be carved out."""
    if request.body is not None and b"base64," not in request.body:
        return 0
    content = bytes(request.fields.get("messages") or request.fields.get("input") or b"")
    return sum(map(len, _SHORT_MEDIA.findall(content)))


def _answer_tokens(request: InferenceRequest, otherwise: int, context: int) -> int:
    fields = request.fields
    longest = otherwise
    for name in _ANSWER_LENGTHS:
        if name in fields and (length := _count(fields[name])):
            # What is beyond the context only means: all of it.
            longest = min(length, context)
            break
    if "n" in fields or "best_of" in fields:
        return longest * max(1, *(_count(fields[name]) for name in _CHOICES if name in fields))
    return longest


def _count(raw: msgspec.Raw) -> int:
    """A positive number, also as a float or as text, which vLLM takes as well; 0: what else is there it refuses."""
    text = bytes(raw).strip(b'"')
    if text.isdigit():
        return int(text) if len(text) < _DIGITS else _MOST
    try:
        number = float(text)
    except ValueError:
        return 0
    return int(min(number, _MOST)) if number > 0 else 0
