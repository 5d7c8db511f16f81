"""An engine in simulated time: steps of continuous batching with chunked prefill, as vLLM schedules them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from loadtest.routing_cache import BLOCK, Chain, PrefixCache


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one engine, roughly a 12B model on one GPU: seconds of a step without tokens and for each token; what fits.

    `encode_tokens` are the tokens that could be prefilled while an image is encoded.
    """

    step: float = 0.015
    token: float = 0.0001
    step_tokens: int = 2048
    max_running: int = 64
    cache_blocks: int = 32_768
    encode_tokens: int = 500

    def most_requests_per_second(self, fresh: float, answered: float) -> float:
        """Where all slots are in use, for requests with so many tokens to prefill and to answer."""
        return self.max_running / (answered * self.step + self.max_running * self.token * (fresh + answered))


@dataclass(slots=True)
class Request:
    """One turn on its way. `chain` is what it will have in the cache, of which `prompt` blocks are the question.

    The engine fills in when it `started` (seconds), how many blocks were a `hit`, and the tokens that are `left` to
    prefill; at its end it calls `finished` with the time.
    """

    chain: Chain
    prompt: int
    answer: int
    arrived: float
    finished: Callable[[Request, float], None]
    image: bool = False
    started: float = 0.0
    hit: int = 0
    left: int = 0


@dataclass(slots=True)
class Engine:
    """`load` is what waits and runs; `computed` counts the tokens that were prefilled and generated."""

    speed: Speed
    cache: PrefixCache = field(init=False)
    load: int = 0
    computed: int = 0
    _waiting: deque[Request] = field(default_factory=deque)
    _prefill: deque[Request] = field(default_factory=deque)
    _decode: list[tuple[int, int, Request]] = field(default_factory=list)
    _steps: int = 0
    _order: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.cache = PrefixCache(self.speed.cache_blocks)

    def arrive(self, request: Request) -> None:
        """It waits until the next step."""
        self.load += 1
        self._waiting.append(request)

    def step(self, now: float) -> float:
        """Begins a step; the seconds that it takes, or 0 where there is nothing to do."""
        self._finish(now)
        self._admit(now)
        tokens = len(self._decode)
        tokens += self._chunk(self.speed.step_tokens - tokens)
        self._steps += 1
        self.computed += tokens
        return self.speed.step + self.speed.token * tokens if tokens else 0.0

    def _finish(self, now: float) -> None:
        while self._decode and self._decode[0][0] <= self._steps:
            request = heapq.heappop(self._decode)[2]
            self.cache.free(request.chain)
            self.load -= 1
            request.finished(request, now)

    def _admit(self, now: float) -> None:
        while self._waiting and len(self._decode) + len(self._prefill) < self.speed.max_running:
            request = self._waiting[0]
            hit = min(self.cache.hit(request.chain), request.prompt - 1)
            if not self.cache.take(request.chain):
                return
            self._waiting.popleft()
            request.started, request.hit = now, hit
            request.left = (request.prompt - hit) * BLOCK
            if request.image and hit < sum(segment.blocks for segment in request.chain[:-1]):
                # The last shared segment is the image: not cached, it goes through the vision encoder.
                request.left += self.speed.encode_tokens
            self._prefill.append(request)

    def _chunk(self, budget: int) -> int:
        """Prefills what the step still has room for; tokens."""
        spent = 0
        while self._prefill and spent < budget:
            request = self._prefill[0]
            part = min(request.left, budget - spent)
            request.left -= part
            spent += part
            if not request.left:
                self._prefill.popleft()
                # The prefill's last step gives the first token.
                heapq.heappush(self._decode, (self._steps + request.answer, next(self._order), request))
        return spent
