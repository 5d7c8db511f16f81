"""Who asks what: conversations with shared system prompts, one-shot requests, images, and think times."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from blake3 import blake3

from gateway.upstream.policies import Hints
from loadtest.routing_cache import BLOCK, Segment

#: Tokens of one image, which is Gemma's default.
_IMAGE = 256


@dataclass(frozen=True, slots=True)
class Turn:
    """Tokens that the user adds, tokens of the answer, and seconds of thinking before."""

    asked: int
    answered: int
    think: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """`shared` is what other conversations begin with as well: system prompt, image. `own` names the rest."""

    start: float
    shared: tuple[Segment, ...]
    own: int
    turns: tuple[Turn, ...]
    hints: Hints
    image: bool


@dataclass(frozen=True)
class Traffic:
    """Its shape. Tokens and seconds are means."""

    prompts: int = 100
    prompt_tokens: int = 2000
    zipf: float = 1.0
    one_shot: float = 0.3
    bare: float = 0.3
    image: float = 0.1
    turns: float = 7
    asked: int = 150
    answered: int = 250
    think: float = 20

    @property
    def requests(self) -> float:
        """Of one conversation, one-shot requests among them, in the mean."""
        return self.one_shot + (1 - self.one_shot) * self.turns


class Trace:
    """Endless conversations, the same for the same seed."""

    def __init__(self, traffic: Traffic, seed: int) -> None:
        self._traffic = traffic
        self._random = random.Random(seed)  # noqa: S311
        self._names = iter(range(1, 1 << 62))
        weights = [1 / (rank + 1) ** traffic.zipf for rank in range(traffic.prompts)]
        self._cumulated = list(accumulate(weights))
        self._prompts = [self._segment(self._tokens(traffic.prompt_tokens)) for _ in weights]
        self._images = [self._segment(_IMAGE) for _ in range(50)]

    def conversations(self, per_second: float) -> Iterator[Conversation]:
        """They begin at random times, so many per second."""
        clock = 0.0
        while True:
            clock += self._random.expovariate(per_second)
            yield self._conversation(clock)

    def _conversation(self, start: float) -> Conversation:
        chance = self._random.random
        one_shot = chance() < self._traffic.one_shot
        bare = one_shot and chance() < self._traffic.bare
        shared: tuple[Segment, ...] = (
            () if bare else (self._prompts[bisect(self._cumulated, chance() * self._cumulated[-1])],)
        )
        image = not bare and chance() < self._traffic.image
        if image:
            # A third of them asks about an image that others ask about as well.
            shared += (self._random.choice(self._images) if chance() < 1 / 3 else self._segment(_IMAGE),)
        own = next(self._names)
        turns = 1 if one_shot else 2 + self._geometric(self._traffic.turns - 2)
        return Conversation(
            start, shared, own, tuple(self._turn() for _ in range(turns)), _hints(shared, own), image=image
        )

    def _turn(self) -> Turn:
        return Turn(
            self._tokens(self._traffic.asked),
            self._tokens(self._traffic.answered),
            self._random.expovariate(1 / self._traffic.think),
        )

    def _segment(self, tokens: int) -> Segment:
        return Segment(next(self._names), -(-tokens // BLOCK))

    def _tokens(self, mean: int) -> int:
        """Lognormal with a long tail."""
        return max(1, int(mean * self._random.lognormvariate(-0.32, 0.8)))

    def _geometric(self, mean: float) -> int:
        return int(self._random.expovariate(1 / mean) + 0.5) if mean > 0 else 0


def _hints(shared: tuple[Segment, ...], own: int) -> Hints:
    """As the gateway makes them of a request's text; without a system prompt there is too little of that."""
    names = [*(segment.name for segment in shared), own]
    prefixes = tuple(_hash(names[: end + 1]) for end in range(len(names))) if shared else ()
    return Hints(prefixes, str(own).encode())


def _hash(names: Sequence[int]) -> int:
    return int.from_bytes(blake3(repr(names).encode()).digest(length=8))
