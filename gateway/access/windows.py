"""A sliding window: how much was used in the time that has just passed. Pure; the caller brings the clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

#: Slots that a window is divided into. One counts in full until all of it has left the window, so that a limit is never
#: exceeded and at most one hundredth of it is wasted.
SLOTS = 100

_NEVER = sys.maxsize


class Window:
    """Amounts by the slots of time in which they were charged.

    `slot` is the length of a slot, a hundredth of the window's. It and all times are whole microseconds of one clock,
    which never goes back. Calls take constant time, the forgetting of old slots spread over them.

    `total` is what counts at any time before `until`; from then on `forget` comes first. `used` does both. Before
    `latest_end` an amount goes into the slot `latest`, where `amounts` has it already. That is for those who count
    nanoseconds.
    """

    __slots__ = ("_slot", "amounts", "latest", "latest_end", "total", "until")

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self.amounts: dict[int, int] = {}
        self.total = 0
        self.until = _NEVER
        self.latest = 0
        self.latest_end = 0

    def used(self, now: int) -> int:
        """What counts at that time."""
        if now >= self.until:
            self.forget(now)
        return self.total

    def charge(self, now: int, amount: int) -> None:
        """Adds an amount."""
        slot = now // self._slot
        amounts = self.amounts
        if slot in amounts:
            amounts[slot] += amount
        else:
            if not amounts:
                self.until = self._end(slot)
            amounts[slot] = amount
            self.latest = slot
            self.latest_end = (slot + 1) * self._slot
        self.total += amount

    def adjust(self, charged: int, difference: int) -> None:
        """Corrects what was charged at the time `charged`, if that still counts."""
        slot = charged // self._slot
        if slot in self.amounts:
            self.amounts[slot] += difference
            self.total += difference

    def forget(self, now: int) -> None:
        """Forgets the slots that have left."""
        amounts = self.amounts
        while amounts:
            first = next(iter(amounts))
            self.until = self._end(first)
            if now < self.until:
                return
            self.total -= amounts.pop(first)
        self.until = _NEVER
        self.latest_end = 0

    def wait(self, now: int, amount: int, limit: int) -> int:
        """Microseconds until `amount`, which is no more than `limit`, fits in beside what is used; 0: it does now.

        No amount always does.
        """
        excess = self.used(now) + amount - limit
        if excess <= 0 or not amount:
            return 0
        return self._end(next(slot for slot, left in self._sums() if left >= excess)) - now

    def empty_in(self, now: int) -> int:
        """Microseconds until nothing is used any more, if nothing comes."""
        for slot in reversed(self.amounts):
            if self.amounts[slot]:
                end = (slot + 1 + SLOTS) * self._slot
                return end - now if end > now else 0
        return 0

    def _sums(self) -> Iterator[tuple[int, int]]:
        """Each slot with how much has left when it has."""
        left = 0
        for slot, amount in self.amounts.items():
            left += amount
            yield slot, left

    def _end(self, slot: int) -> int:
        """When a slot stops to count: a whole window after its end."""
        return (slot + 1 + SLOTS) * self._slot


def corrections(charges: Sequence[tuple[int, int]], amount: int) -> list[tuple[int, int]]:
    """What to change where `charges` (time, amount), oldest first, turn out to be `amount` in all: (time, difference).

    What is too much goes back to the latest first; what is missing is added to the latest.
    """
    if len(charges) == 1:  # nearly always
        return [(charges[0][0], amount - charges[0][1])]
    found = []
    missing = amount - sum(charged for _, charged in charges)
    for time, charged in reversed(charges):
        difference = max(missing, -charged)
        found.append((time, difference))
        missing -= difference
    return found
