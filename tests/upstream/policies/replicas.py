"""Replicas with a given load, and keys."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Stub:
    """A replica as a policy sees it."""

    name: str
    load: float = 0


def replicas(*loads: float) -> list[Stub]:
    return [Stub(f"10.0.0.{at}:8000", load) for at, load in enumerate(loads)]


def keys(count: int, seed: int = 0) -> Sequence[int]:
    chance = random.Random(seed)
    return [chance.getrandbits(64) for _ in range(count)]
