"""The requests of a scenario, each different, the same for the same seed."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.deployment import media
from loadtest.deployment.scenario import Kind, Scenario, Span

_TEXT = (
    "river morning paper window garden letter market winter bridge story engine island number music answer colour "
    "mountain kitchen teacher summer village doctor forest picture question silver harbour blanket station thunder"
)
_WORDS = _TEXT.split()
_QUESTION = "Tell in some detail what comes to mind about this, and about what is attached if anything is."


@dataclass(frozen=True)
class Request:
    """A body for /v1/chat/completions and the name of its kind."""

    kind: str
    body: dict[str, Any]


def kinds(scenario: Scenario) -> list[Kind]:
    """The kind of each request, the warm-up first. Shares are exact up to rounding, the order is by chance."""
    warm_up = [scenario.mix[number % len(scenario.mix)] for number in range(scenario.warm_up)]
    counts = _shares([kind.weight for kind in scenario.mix], scenario.requests)
    measured = [kind for kind, count in zip(scenario.mix, counts, strict=True) for _ in range(count)]
    random.Random(scenario.seed).shuffle(measured)  # noqa: S311  (has to be the same each time)
    return warm_up + measured


def generate(scenario: Scenario, model: str, run: int) -> Iterator[Request]:
    """All requests, the warm-up first. Sizes depend on the seed alone; what is in them also on `run`, so that a second
    run over the same engine finds nothing in its caches.
    """
    sizes = np.random.default_rng(scenario.seed)
    content = np.random.default_rng([scenario.seed, run])
    for kind in kinds(scenario):
        parts = [{"type": "text", "text": _prompt(content, _pick(sizes, kind.words))}, *_media(kind, sizes, content)]
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": _pick(sizes, kind.output_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if scenario.full_length else {}),
            "messages": [{"role": "user", "content": parts}],
        }
        yield Request(kind.name, body)


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """Largest remainders."""
    exact = [weight / sum(weights) * total for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _pick(sizes: np.random.Generator, span: Span) -> int:
    return int(sizes.integers(span[0], span[1] + 1))


def _prompt(content: np.random.Generator, words: int) -> str:
    """Begins with words by chance: prompts that began alike would share a prefix in the engine's cache."""
    return f"{' '.join(content.choice(_WORDS, words))}. {_QUESTION}"


def _media(kind: Kind, sizes: np.random.Generator, content: np.random.Generator) -> Iterator[dict[str, Any]]:
    if (pictures := kind.pictures) is not None:
        for _ in range(pictures.count):
            width, height = _pick(sizes, pictures.width), _pick(sizes, pictures.height)
            data = _encoded(media.picture(content, width, height, pictures.format))
            yield {"type": "image_url", "image_url": {"url": f"data:image/{pictures.format};base64,{data}"}}
    if kind.clip is not None:
        sound = media.clip(content, _pick(sizes, kind.clip.seconds), kind.clip.hertz, kind.clip.format)
        yield {"type": "input_audio", "input_audio": {"data": _encoded(sound), "format": kind.clip.format}}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
