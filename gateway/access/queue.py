"""Who waits for a place, whose turn is next, and who is given up first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Ticket(Protocol):
    """A request that waits: whose it is, and its priority, of which lower numbers come first. Compared by identity."""

    @property
    def caller(self) -> str: ...

    @property
    def priority(self) -> int: ...


T = TypeVar("T", bound=Ticket)

#: The requests of one caller, by arrival.
_Line = OrderedDict[T, None]
#: The lines of one priority, by turn.
_Level = OrderedDict[str, _Line[T]]


class Queue(Generic[T]):
    """Requests by priority; within one the callers take turns; the requests of a caller go by their arrival.

    Adding and removing take the same time however many wait.
    """

    def __init__(self) -> None:
        self._levels: dict[int, _Level[T]] = {}
        self.size = 0

    def add(self, ticket: T) -> None:
        """Puts a request at the end of its caller's line; a caller with none yet gets the last turn."""
        level = self._levels.setdefault(ticket.priority, OrderedDict())
        level.setdefault(ticket.caller, OrderedDict())[ticket] = None
        self.size += 1

    def remove(self, ticket: T) -> None:
        """Takes out a request wherever it stands. Does nothing where it does not wait."""
        level = self._levels.get(ticket.priority)
        line = level.get(ticket.caller) if level else None
        if level is None or line is None or ticket not in line:
            return
        del line[ticket]
        self.size -= 1
        if not line:
            del level[ticket.caller]
        if not level:
            del self._levels[ticket.priority]

    def first(self) -> T | None:
        """The request whose turn it is, left where it is."""
        if not self._levels:
            return None
        line = next(iter(self._levels[min(self._levels)].values()))
        return next(iter(line))

    def serve(self, ticket: T) -> None:
        """Takes out the request whose turn it is; its caller's next turn comes after those of the others."""
        self._levels[ticket.priority].move_to_end(ticket.caller)
        self.remove(ticket)

    def victim(self, newcomer: T) -> T | None:
        """The request that is to make room for `newcomer`, left where it is; None where the newcomer has to go.

        It is the newest of the caller with the most waiting at the worst priority, if that is worse than the
        newcomer's or if the newcomer's caller has fewer waiting at it even with the newcomer. Of several such
        callers, the one whose turn is last.
        """
        if not self._levels:
            return None
        worst = max(self._levels)
        level = self._levels[worst]
        longest = max(reversed(level.values()), key=len)
        if newcomer.priority > worst:
            return None
        if newcomer.priority == worst and len(level.get(newcomer.caller, ())) + 1 >= len(longest):
            return None
        return next(reversed(longest))
