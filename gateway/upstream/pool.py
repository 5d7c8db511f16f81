"""An engine as the gateway sees it: a pool of replicas, one of which answers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence

from gateway.errors import GatewayError
from gateway.protocol import Buffer
from gateway.settings import EngineSettings
from gateway.settings.engines import Policy
from gateway.upstream.connection import Connection
from gateway.upstream.discovery import Discovery, discovery
from gateway.upstream.hold import Hold
from gateway.upstream.policies import NO_HINTS, Choice, Hints, policy
from gateway.upstream.probe import Health, health
from gateway.upstream.replica import Replica, read_up_to
from gateway.upstream.reply import KeptReply, Reply
from gateway.upstream.retries import Budget, Course, Outcome, outcome_of_error, outcome_of_reply
from gateway.upstream.roster import Roster
from gateway.upstream.upkeep import Upkeep

__all__ = ["Engine", "Reply"]

logger = logging.getLogger(__name__)

#: Bytes of a faulty reply that are read; those of vLLM are far smaller.
MOST_OF_FAULT = 64 * 1024


def _unheard(replica: str, kind: str) -> None:
    """Stands in for `on_event`."""


class Engine:
    """One engine: sends each request to a replica that can take it, and to another where that fails in time.

    `ready`: a replica is known to be healthy. `on_event` hears what befalls replicas: the name, and `retry` (another
    gets what failed there), `ejected`, `restored`, `busy` or `connect_failed`; without a name `held`.

    `found_by` finds the replicas, in place of what the settings name. Raises ConfigurationError where those name a way
    that cannot work here.
    """

    def __init__(self, name: str, settings: EngineSettings, found_by: Discovery | None = None) -> None:
        self.name = name
        self.settings = settings
        self.ready = False
        self.in_flight = 0
        self.on_event: Callable[[str, str], None] = _unheard
        self._policy = policy(settings.routing.policy)
        self._wants_hints = settings.routing.policy in (Policy.AFFINITY, Policy.SESSION)
        self._budget = Budget(settings.retries.budget)
        self._hold = Hold(settings.hold)
        self._roster = Roster(self._renewed)
        self._discovery = found_by or discovery(settings)
        self._watched = False
        self._on_change: Callable[[Engine], None] | None = None
        self._told: bool | None = None
        urls = (settings.url,) if settings.url else settings.urls
        self._roster.set(Replica(url, settings) for url in urls)

    def __repr__(self) -> str:
        idle = sum(replica.idle for replica in self.replicas.values())
        return f"<Engine {self.name} ready={self.ready} in_flight={self.in_flight} idle={idle}>"

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """The replicas by their URLs."""
        return self._roster.replicas

    @property
    def held(self) -> int:
        """Requests that wait for a replica: what to scale up from zero by."""
        return len(self._hold)

    @property
    def usable(self) -> int:
        """Replicas that can take requests now."""
        return len(self._roster.usable)

    # Requests

    async def send(
        self,
        method: bytes,
        path: str,
        body: Sequence[Buffer] = (),
        headers: bytes = b"",
        *,
        model: str | None = None,
        hints: Callable[[], Hints] | None = None,
        hold: bool = True,
    ) -> Reply:
        """Sends a request and returns once the headers of the reply have come, or of a stream of events the first
        bytes. Cancelling it makes the engine stop.

        `body` may come in pieces, `headers` are whole lines. Replicas that list `model` are preferred. `hints` is asked
        only where there is a choice. `hold`: whether to wait where no replica can be asked.

        Raises EngineUnavailableError, EngineFailedError or EngineTimeoutError.
        """
        course: Course | None = None
        while True:
            choice = self._roster.only
            if choice is None or course is not None:
                choice = self._choose(model, hints, course)
            if choice is None:
                course = course or Course()
                if not self._may_wait(course, model, hold=hold):
                    return self._last_of(course)
                await self._wait(course)
                continue
            replica = choice.replica
            self.in_flight += 1
            replica.in_flight += 1
            try:
                connection = await replica.exchange(method, path, body, headers)
                if connection.status < 429:
                    if replica.ejection.trial:
                        self._succeeded(replica)
                    return Reply(self, choice, connection)
                found: KeptReply | GatewayError = await self._look_into(choice, connection)
            except GatewayError as error:
                found = error
            except BaseException:
                self._leave(replica)
                raise
            self._leave(replica)
            course = course or Course()
            self._note(course, replica, found)

    def release(self, replica: Replica, connection: Connection) -> None:
        """Takes the connection of a reply back, and what its end says of the replica."""
        self.in_flight -= 1
        replica.in_flight -= 1
        ejection = replica.ejection
        if connection.complete:
            if ejection.troubled:
                self._succeeded(replica)
        elif connection.closed:
            self._failed(replica)
        elif ejection.trial:
            ejection.end_trial()
            self._roster.refresh()
        replica.keep(connection)

    async def _look_into(self, choice: Choice[Replica], connection: Connection) -> KeptReply:
        """The whole of a reply that may mean that another replica has to be asked."""
        try:
            body = await read_up_to(connection, MOST_OF_FAULT)
        finally:
            choice.replica.keep(connection)
        return KeptReply(self, choice, connection, body)

    def _leave(self, replica: Replica) -> None:
        self.in_flight -= 1
        replica.in_flight -= 1
        if replica.ejection.trial:
            replica.ejection.end_trial()
            self._roster.refresh()

    # The choice

    def _choose(
        self, model: str | None, hints: Callable[[], Hints] | None, course: Course | None
    ) -> Choice[Replica] | None:
        """A replica for a request; None where none may be asked, or asked as well."""
        candidates = self._roster.listing(model)
        if course is None:
            self._budget.deposit()
        elif course.tried:
            candidates = self._others(candidates, course)
        if not candidates:
            return None
        if len(candidates) == 1:
            choice = candidates[0].alone
        else:
            told = hints() if hints is not None and self._wants_hints else NO_HINTS
            choice = self._policy(candidates, told, self.settings.routing.load_bound)
        if choice.replica.ejection.until and choice.replica.ejection.begin_trial(_now()):
            self._roster.refresh()
        return choice

    def _others(self, candidates: Sequence[Replica], course: Course) -> Sequence[Replica]:
        """Those that may be asked as well, after what has become of the request so far."""
        if not course.allows_another(self.settings.retries):
            return ()
        tried = course.tried
        others = [each for each in candidates if each not in tried]
        if course.answered:
            # There is something to tell the client: nobody else need be asked who is known to be full.
            now = _now()
            others = [each for each in others if each.busy_until <= now]
        if not others or (course.costs and not self._budget.take()):
            return ()
        self.on_event(tried[-1].name, "retry")
        return others

    def _may_wait(self, course: Course, model: str | None, *, hold: bool) -> bool:
        """Whether it helps to wait: somebody looks for a replica that is ready, and there is none."""
        return hold and self._watched and course.may_wait and not self._roster.listing(model)

    async def _wait(self, course: Course) -> None:
        """Waits until a replica is usable. Raises EngineUnavailableError."""
        if course.held_until is None:
            course.held_until = _now() + self._hold.seconds
            self.on_event("", "held")
            # The pauses between looks at what has been down for long are long, but now somebody waits.
            for replica in self.replicas.values():
                replica.doubt()
        await self._hold.wait(course.held_until)
        course.waited()

    def _last_of(self, course: Course) -> Reply:
        """What the client gets. Raises GatewayError."""
        reply = course.result()
        now = _now()
        waits = [each.full_until - now for each in self.replicas.values() if each.full_until > now]
        if waits and b"retry-after" in reply.headers and len(self.replicas) > 1:
            reply.headers = {**reply.headers, b"retry-after": b"%d" % max(1, math.ceil(min(waits)))}
        return reply

    # What is learnt from requests

    def _note(self, course: Course, replica: Replica, found: KeptReply | GatewayError) -> None:
        if isinstance(found, GatewayError):
            outcome: Outcome | None = outcome_of_error(found)
        else:
            outcome = outcome_of_reply(found.status, found.body)
        course.note(replica, outcome, found)
        if outcome is Outcome.BUSY and isinstance(found, KeptReply):
            replica.busy(_now(), found.headers.get(b"retry-after"))
            self.on_event(replica.name, "busy")
            self._roster.refresh()
        elif outcome is Outcome.UNSENT or outcome is Outcome.STOPPING:
            self._doubt(replica)
        if outcome is Outcome.UNSENT:
            self.on_event(replica.name, "connect_failed")
        if outcome is not None and outcome.is_failure:
            self._failed(replica)

    def _doubt(self, replica: Replica) -> None:
        """It can take no requests now; the probe tells when it can. Where nothing probes, the next request has to."""
        if self._watched:
            replica.doubt()
            self._heard(replica, healthy=False)

    def _failed(self, replica: Replica) -> None:
        if replica.ejection.failed(_now()):
            logger.warning("replica %s of engine %s fails, and is left out for a while", replica.name, self.name)
            self.on_event(replica.name, "ejected")
            self._roster.refresh()

    def _succeeded(self, replica: Replica) -> None:
        if replica.ejection.succeeded(_now()):
            logger.info("replica %s of engine %s works again", replica.name, self.name)
            self.on_event(replica.name, "restored")
            self._roster.refresh()

    # What is learnt from probes

    async def run(self, on_change: Callable[[Engine], None]) -> None:
        """Finds replicas and keeps their state true until cancelled; `on_change` hears when `ready` changes.

        Raises what the discovery raises.
        """
        self._on_change = on_change
        self._watched = True
        if self._told is not None:
            on_change(self)
        else:
            self._renewed()
        try:
            await Upkeep(self.settings, self._roster, self._heard).run(self._discovery)
        finally:
            self._watched = False
            self._on_change = None

    async def look(self) -> bool:
        """Asks each replica once whether it is ready; whether one is. For before `run`."""
        replicas = list(self.replicas.values())
        for replica, found in zip(replicas, await asyncio.gather(*map(health, replicas)), strict=True):
            if found is Health.READY:
                self._heard(replica, healthy=True)
        return self.ready

    async def aclose(self) -> None:
        """Drops the kept connections, and from now on keeps none."""
        self._roster.close()
        for replica in self.replicas.values():
            replica.retire()

    def _heard(self, replica: Replica, healthy: bool) -> None:
        self._roster.forget_lists()
        if replica.healthy is healthy:
            return
        replica.healthy = healthy
        if not healthy:
            replica.close_idle()
        if len(self.replicas) > 1:
            state = "ready" if healthy else "not ready"
            logger.info("replica %s of engine %s is %s", replica.name, self.name, state)
        self._roster.refresh()

    def _renewed(self) -> None:
        """After each decision who is usable."""
        if self._roster.usable:
            self._hold.release()
        states = [replica.healthy for replica in self.replicas.values()]
        self.ready = True in states
        if self.ready == self._told or (None in states and not self.ready):
            return
        self._told = self.ready
        level, state = (logging.INFO, "ready") if self.ready else (logging.WARNING, "not ready")
        logger.log(level, "engine %s is %s", self.name, state)
        if self._on_change is not None:
            self._on_change(self)


def _now() -> float:
    return asyncio.get_running_loop().time()
