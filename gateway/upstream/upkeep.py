"""Works in the background for a pool: finds its replicas, probes each, and reads its gauges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from gateway.settings import EngineSettings
from gateway.settings.engines import Policy
from gateway.upstream.discovery import Discovery
from gateway.upstream.gauges import Reading
from gateway.upstream.probe import Probe
from gateway.upstream.replica import Replica
from gateway.upstream.roster import Roster

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


class Upkeep:
    """Keeps `roster` true. `heard` gets each verdict of a probe."""

    def __init__(self, settings: EngineSettings, roster: Roster, heard: Callable[[Replica, bool], None]) -> None:
        self._settings = settings
        self._roster = roster
        self._heard = heard
        self._at_work: dict[Replica, list[asyncio.Task[None]]] = {}

    async def run(self, discovery: Discovery) -> None:
        """Works until cancelled. Raises what `discovery` raises."""
        for replica in self._roster.replicas.values():
            self._begin(replica)
        try:
            await discovery.run(self.replace)
            await asyncio.get_running_loop().create_future()
        finally:
            await self._end_all()

    def replace(self, urls: Sequence[str]) -> None:
        """Takes these as the pool's replicas. Who leaves gets no new requests; what runs there goes on."""
        known = self._roster.replicas
        new = {url: known.get(url) or Replica(url, self._settings) for url in urls}
        self._roster.set(new.values())
        for url, replica in known.items():
            if url not in new:
                self._end(replica)
        for url, replica in new.items():
            if url not in known:
                self._begin(replica)
        self._roster.refresh()

    def _begin(self, replica: Replica) -> None:
        work: list[Work] = [Probe(replica, self._settings.probe_seconds, self._heard).run]
        routing = self._settings.routing
        if routing.gauges_seconds > 0 and routing.policy is not Policy.ROUND_ROBIN:
            work.append(Reading(replica, routing.gauges_seconds, self._is_choice).run)
        self._at_work[replica] = [asyncio.create_task(self._for_ever(replica, each)) for each in work]

    async def _for_ever(self, replica: Replica, work: Work) -> None:
        """A fault of ours must not leave a replica unwatched."""
        while True:
            try:
                await work()
            except Exception:
                logger.exception("watching replica %s failed, and starts anew", replica.name)
                await asyncio.sleep(self._settings.probe_seconds)

    def _is_choice(self) -> bool:
        return len(self._roster.replicas) > 1

    def _end(self, replica: Replica) -> None:
        for task in self._at_work.pop(replica, ()):
            task.cancel()
        replica.retire()

    async def _end_all(self) -> None:
        tasks = [task for each in self._at_work.values() for task in each]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._at_work.clear()
