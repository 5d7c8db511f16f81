"""Decides which failed requests another replica gets: only what is safe, and no more than the pool can bear."""

from __future__ import annotations

from enum import Enum

from gateway.errors import EngineTimeoutError, EngineUnavailableError, GatewayError
from gateway.settings.engines import RetrySettings
from gateway.upstream.connecting import unavailable
from gateway.upstream.replica import Replica
from gateway.upstream.reply import KeptReply

#: What vLLM says in a 500 when a request comes while it shuts down.
SHUTTING_DOWN = b"cannot schedule new futures"
#: What our engine process says in a 503 while it is warming up or draining.
NOT_READY = b'"engine_unavailable"'

#: Retries that a pool may make before its requests have earned any, and the most that it can save up.
FREE_RETRIES = 10.0
MOST_RETRIES = 100.0


class Outcome(Enum):
    """What became of one try before the first byte of the answer."""

    #: No connection, so nothing was sent.
    UNSENT = "unsent"
    #: The connection broke, or what came was no HTTP.
    BROKEN = "broken"
    #: Full, by 429 or 503.
    BUSY = "busy"
    #: The engine starts or stops, and says so.
    STOPPING = "stopping"
    #: An error of the engine, 5xx.
    FAILED = "failed"
    #: Nothing came in time.
    LATE = "late"

    @property
    def is_failure(self) -> bool:
        """Whether it speaks against the replica."""
        return self not in (Outcome.BUSY, Outcome.STOPPING)


def outcome_of_error(error: GatewayError) -> Outcome:
    """What an error on the way to the reply means."""
    if isinstance(error, EngineUnavailableError):
        return Outcome.UNSENT
    return Outcome.LATE if isinstance(error, EngineTimeoutError) else Outcome.BROKEN


def outcome_of_reply(status: int, body: bytes) -> Outcome | None:
    """What a whole reply means; None where it is the answer to the request, if only that it is wrong."""
    if (status == 500 and SHUTTING_DOWN in body) or (status == 503 and NOT_READY in body):
        return Outcome.STOPPING
    if status in (429, 503):
        return Outcome.BUSY
    return Outcome.FAILED if status >= 500 else None


class Budget:
    """Retries as a share of the requests: each request adds the share, each retry takes one."""

    __slots__ = ("_left", "_share")

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = FREE_RETRIES

    def deposit(self) -> None:
        """One more request."""
        self._left = min(self._left + self._share, MOST_RETRIES)

    def take(self) -> bool:
        """One more retry; whether there is one left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Course:
    """What has become of one request so far. Exists only once something went wrong, or had to be waited for.

    `reply` or `error` is what the client gets if nobody else can be asked; neither where nothing was sent yet.
    """

    __slots__ = ("_broken", "_outcome", "_seen_down", "_spent", "_stopped", "error", "held_until", "reply", "tried")

    def __init__(self) -> None:
        self.tried: list[Replica] = []
        self.reply: KeptReply | None = None
        self.error: GatewayError | None = None
        self.held_until: float | None = None
        self._outcome: Outcome | None = None
        self._spent = 0
        self._seen_down: dict[Replica, int] = {}
        self._broken = self._stopped = 0

    @property
    def answered(self) -> bool:
        """Whether there is something to give to the client."""
        return self.reply is not None or self.error is not None

    def result(self) -> KeptReply:
        """The reply to give to the client, once `answered`. Raises GatewayError where an error is."""
        if self.reply is None:
            raise self.error or unavailable()
        return self.reply

    def note(self, replica: Replica, outcome: Outcome | None, found: KeptReply | GatewayError) -> None:
        """Takes note of a try."""
        self.tried.append(replica)
        self._outcome = outcome
        self._broken += outcome is Outcome.BROKEN
        if outcome is Outcome.STOPPING:
            self._stopped += 1
            self._seen_down[replica] = replica.seen_down
        if outcome is Outcome.UNSENT:
            return
        self._spent += 1
        if isinstance(found, GatewayError):
            self.reply, self.error = None, found
        else:
            self.reply, self.error = found, None

    def allows_another(self, settings: RetrySettings) -> bool:
        """Whether another replica may be tried.

        Where nothing was sent always, and that does not count. Else within `attempts`; and once only after a broken
        connection, so that a request which kills engines does not go round all of them.
        """
        if self._outcome is Outcome.UNSENT:
            return not self.answered or self._spent <= settings.attempts
        if self._outcome not in (Outcome.BROKEN, Outcome.BUSY, Outcome.STOPPING):
            return False
        return self._broken <= 1 and self._spent <= settings.attempts

    @property
    def may_wait(self) -> bool:
        """Whether the request may wait for a replica to become ready: nothing was sent, or somebody just stopped. The
        latter once.
        """
        return not self.answered or (self._outcome is Outcome.STOPPING and self._stopped == 1)

    def waited(self) -> None:
        """Those that were tried may be asked again after a wait; but not one that said it was stopping and was found
        to be ready all the time: it has had its last word.
        """
        self.tried = [each for each in self.tried if self._seen_down.get(each) == each.seen_down]

    @property
    def costs(self) -> bool:
        """Whether the next try goes on the pool's budget: replicas have spent something on those before."""
        return self._outcome in (Outcome.BROKEN, Outcome.BUSY)
