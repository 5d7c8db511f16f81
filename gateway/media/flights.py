"""Single flight: what several want at the same time is got once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from copy import copy
from typing import Any, Generic, TypeVar

from gateway.errors import GatewayError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[K, V]):
    """Work under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of the work under way for `key`, which `start` begins where there is none.

        Whoever is cancelled leaves the work to the others; when the last one leaves, it is cancelled. A GatewayError
        reaches each as an exception of its own.
        """
        flight = self._flights.get(key) or self._begin(key, start)
        flight.waiting += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._forget(key, flight)
                flight.task.cancel()  # Where it has ended already, this keeps asyncio from logging what nobody saw.
        return _result(flight.task)

    async def aclose(self) -> None:
        """Cancels all work and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> _Flight[V]:
        task = asyncio.create_task(start())
        flight = self._flights[key] = _Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: K, flight: _Flight[V]) -> None:
        self._forget(key, flight)
        self._tasks.discard(flight.task)

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        """Lets nobody join any more; another flight for the same key may have begun since."""
        if self._flights.get(key) is flight:
            del self._flights[key]


def _result(task: asyncio.Task[V]) -> V:
    fault = None if task.cancelled() else task.exception()
    if isinstance(fault, GatewayError):
        raise copy(fault) from fault
    return task.result()
