"""Who is in a pool, and who of them can take requests now: decided when something changes, not for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from gateway.upstream.policies import Choice
from gateway.upstream.replica import Replica

#: Models whose lists of replicas are remembered: names come from configuration, but also from clients.
_MOST_LISTS = 256


def usable(replicas: Collection[Replica], now: float) -> list[Replica]:
    """Those that a request may go to at the time `now`, in the order given.

    Healthy ones first; where there is none those that were never asked, for they may well be. Among these the ones
    that are neither ejected nor busy; else the ones that are only busy; and else all, for somebody who failed of late
    is better than nobody.
    """
    healthy = [replica for replica in replicas if replica.healthy]
    group = healthy or [replica for replica in replicas if replica.healthy is None]
    sound = [replica for replica in group if replica.ejection.admits(now)]
    return [replica for replica in sound if replica.busy_until <= now] or sound or group


class Roster:
    """The replicas of one pool by URL. `changed` is called after each new decision.

    `only` is set where there is no choice, which costs a request nothing then.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.replicas: Mapping[str, Replica] = {}
        self.usable: Sequence[Replica] = ()
        self.only: Choice[Replica] | None = None
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._lists: dict[str, Sequence[Replica]] = {}

    def set(self, replicas: Iterable[Replica]) -> None:
        """Takes these as its members, without a decision that takes time into account: nobody has failed yet."""
        self.replicas = {replica.url: replica for replica in sorted(replicas, key=lambda each: each.url)}
        self._decide(0.0)

    def refresh(self) -> None:
        """Decides anew, and again by itself when the time of somebody who is left out is over."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._decide(now)
        self.close()
        ends = [end for r in self.replicas.values() for end in (r.ejection.until, r.busy_until) if end > now]
        if ends:
            self._timer = loop.call_at(min(ends), self.refresh)
        self._changed()

    def listing(self, model: str | None) -> Sequence[Replica]:
        """The usable ones that say they serve `model`.

        All of them where nobody in the pool says so: then an engine gives the answer. Where only somebody does who is
        not usable now nobody, for the others would deny what is merely away.
        """
        if model is None:
            return self.usable
        found = self._lists.get(model)
        if found is None:
            named = [replica for replica in self.replicas.values() if replica.models and model in replica.models]
            found = [replica for replica in self.usable if replica in named] if named else self.usable
            if len(self._lists) < _MOST_LISTS:
                self._lists[model] = found
        return found

    def forget_lists(self) -> None:
        """Models may have come or gone."""
        self._lists.clear()

    def close(self) -> None:
        """Stops the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _decide(self, now: float) -> None:
        self.usable = usable(self.replicas.values(), now)
        self.only = self.usable[0].alone if len(self.usable) == 1 else None
        self._lists.clear()
