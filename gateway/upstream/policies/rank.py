"""In which order a key prefers the replicas: rendezvous hashing.

Each pair of key and replica has a score, and the highest wins (Thaler and Ravishankar, 1998). It shares out evenly
without the many points of a hash ring, moves only the keys of a replica that leaves, and tells the second choice as
well as the first. Every gateway comes to the same order, since nothing but the names counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from blake3 import blake3

_64_BITS = (1 << 64) - 1

Names = tuple[str, ...]


def hashed(data: bytes) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(blake3(data).digest(length=8))


@lru_cache(4096)
def _seeds(name: str) -> tuple[int, int]:
    """What a replica does to a key: a number to mix in, and an odd factor."""
    digest = blake3(name.encode()).digest(length=16)
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:]) | 1


@lru_cache(256)
def _all_seeds(names: Names) -> tuple[tuple[int, int], ...]:
    return tuple(map(_seeds, names))


def _scores(names: Names, among: Sequence[int], key: int) -> list[int]:
    """How much a key likes each replica; the product's halves are folded, as in wyhash."""
    seeds = _all_seeds(names)
    products = [(key ^ seed) * factor for seed, factor in map(seeds.__getitem__, among)]
    return [(product ^ product >> 64) & _64_BITS for product in products]


def preferred(names: Names, among: Sequence[int], key: int) -> Iterator[int]:
    """Positions out of `among`, the one that a 64-bit key likes best first; the others are sorted once needed."""
    if len(among) == 1:
        yield among[0]
        return
    scores = _scores(names, among, key)
    yield among[scores.index(max(scores))]
    yield from _sorted(among, scores)[1:]


@lru_cache(2048)
def ranked(names: Names, key: int) -> tuple[int, ...]:
    """All positions in the order that a key likes them; for keys that many requests share."""
    everyone = range(len(names))
    return tuple(_sorted(everyone, _scores(names, everyone, key)))


def _sorted(among: Sequence[int], scores: list[int]) -> list[int]:
    return [among[at] for at in sorted(range(len(among)), key=scores.__getitem__, reverse=True)]
