"""A memory bounded by bytes and by entries, which forgets what was longest unused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache
from prometheus_client import Gauge

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps values that `size` finds to take `max_bytes` together at most; where that is 0, nothing.

    `gauge` shows the bytes.
    """

    def __init__(self, max_bytes: int, max_entries: int, gauge: Gauge, size: Callable[[V], int]) -> None:
        self._values: LRUCache[K, V] = LRUCache(max_bytes, getsizeof=size)
        self._max_entries = max_entries
        self._gauge = gauge
        self._size = size

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, which counts as used now."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keeps a value in place of an earlier one; one that is over the bound by itself is not kept."""
        self._values.pop(key, None)
        if self._size(value) <= self._values.maxsize:
            self._values[key] = value
        while len(self._values) > self._max_entries:
            self._values.popitem()
        self._gauge.set(self._values.currsize)

    def drop(self, key: K) -> None:
        """Forgets a value, if there is one."""
        self._values.pop(key, None)
        self._gauge.set(self._values.currsize)
