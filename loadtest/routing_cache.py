"""A prefix cache like vLLM's: blocks of 16 tokens, found by the hash of all that came before, the least recent evicted.

A prompt is a chain of segments (a system prompt, an image, a conversation), of which each holds blocks that always
come after the same ones. vLLM frees a request's blocks last block first, so of a segment the tail goes before the
head, and a segment goes before the ones it follows. So what is cached of a segment is always a beginning, and one
number per segment tells it: this decides as a list of single blocks would, and a test holds it to that.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Tokens; vLLM's default.
BLOCK = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """So many blocks of a prompt; a longer one of the same name begins with them."""

    name: int
    blocks: int


Chain = Sequence[Segment]


@dataclass(slots=True)
class PrefixCache:
    """One engine's, with room for `capacity` blocks."""

    capacity: int
    used: int = 0
    _blocks: dict[int, int] = field(default_factory=dict)
    _held: Counter[int] = field(default_factory=Counter)
    _evictable: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _evictable_blocks: int = 0

    def hit(self, chain: Chain) -> int:
        """Blocks at the beginning of the chain that are cached."""
        found = 0
        for segment in chain:
            cached = min(self._blocks.get(segment.name, 0), segment.blocks)
            found += cached
            if cached < segment.blocks:
                break
        return found

    def take(self, chain: Chain) -> bool:
        """Holds all blocks of the chain for a request, evicting others; False where there is not enough room."""
        mine = [segment.name for segment in chain]
        grown = sum(max(0, segment.blocks - self._blocks.get(segment.name, 0)) for segment in chain)
        idle = sum(self._blocks.get(name, 0) for name in mine if not self._held[name])
        if grown > self.capacity - self.used + self._evictable_blocks - idle:
            return False
        for name in mine:
            self._hold(name)
        self._evict(self.used + grown - self.capacity)
        for segment in chain:
            self._blocks[segment.name] = max(segment.blocks, self._blocks.get(segment.name, 0))
        self.used += grown
        return True

    def free(self, chain: Chain) -> None:
        """The request is over: its blocks stay until the room is needed."""
        for segment in reversed(chain):
            self._held[segment.name] -= 1
            if not self._held[segment.name]:
                del self._held[segment.name]
                self._evictable[segment.name] = None
                self._evictable_blocks += self._blocks[segment.name]

    def _hold(self, name: int) -> None:
        if not self._held[name] and name in self._evictable:
            del self._evictable[name]
            self._evictable_blocks -= self._blocks[name]
        self._held[name] += 1

    def _evict(self, blocks: int) -> None:
        while blocks > 0:
            name = next(iter(self._evictable))
            gone = min(blocks, self._blocks[name])
            self._blocks[name] -= gone
            self.used -= gone
            self._evictable_blocks -= gone
            blocks -= gone
            if not self._blocks[name]:
                del self._blocks[name], self._evictable[name]
