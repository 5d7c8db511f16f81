"""What is seen of one request from its arrival to its end."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping

from gateway.access.admission import Place
from gateway.access.callers import Caller
from gateway.access.quota import Entry
from gateway.api.estimate import NOTHING, Estimate
from gateway.catalog import Route
from gateway.settings import Modality
from gateway.tracing import Exchange, Phase, Trace
from gateway.upstream.sse import Usage

#: What requests are counted under that never got as far as a model.
UNKNOWN = "unknown"

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


def new_request_id() -> str:
    """An id that no other request of any gateway has; vLLM takes it over, so it must never be the client's choice."""
    return f"req-{_prefix}{next(_numbers):08x}"


class Observation:
    """Filled in as the request goes on. Times are monotonic seconds.

    `body_bytes` are held of the budget for bodies. `expected`, and `media_tokens` beside it, are what `entry`, the
    request's charge of its quotas, was made for. `sent`: when an engine got the request. `events` have been passed on.
    How many `seconds` it took, and whether its usage is only `estimated`, is known at the end.
    """

    # Defaults stand on the class: most requests never set most of them, and making one costs a third of a dataclass.
    caller: Caller | None = None
    route: Route | None = None
    user: str | None = None
    stream = False
    body_bytes = 0
    entry: Entry | None = None
    expected: Estimate = NOTHING
    media_tokens: Mapping[Modality, int] | None = None
    place: Place | None = None
    sent: float | None = None
    status = 0
    error: str | None = None
    reason: str | None = None
    first_byte: float | None = None
    events = 0
    usage: Usage | None = None
    replica: str | None = None
    trace: Trace | None = None
    exchanges = 0
    phases: tuple[Phase, ...] = ()
    seconds = 0.0
    estimated = False

    def __init__(self, path: str, method: str = "POST") -> None:
        self.path = path
        self.method = method
        self.request_id = new_request_id()
        self.id_line = b"x-request-id: %b\r\n" % self.request_id.encode()
        self.started = time.monotonic()

    @property
    def model(self) -> str:
        """The name that was called, as the catalog has it: one of few."""
        return UNKNOWN if self.route is None else self.route.alias

    @property
    def engine(self) -> str | None:
        return None if self.route is None else self.route.engine

    @property
    def queue_seconds(self) -> float:
        return 0.0 if self.place is None else self.place.waited

    def note_phase(self, name: str, started: float) -> None:
        """A part of the request has ended; for its trace, if it has one."""
        if self.trace is not None and self.trace.sampled:
            self.phases += (Phase(name=name, start=started, end=time.monotonic()),)

    def note_exchange(self, route: Route, error: str | None) -> None:
        """An exchange with an engine has ended; it began when it was `sent`."""
        if self.trace is not None and self.trace.sampled:
            ended = Exchange(
                start=self.sent or self.started,
                end=time.monotonic(),
                number=self.exchanges,
                address=self.replica,
                served_name=route.served_name,
                engine=route.engine,
                status=self.status or None,
                first_byte=self.first_byte,
                error=error,
            )
            self.phases += (ended,)
            self.exchanges += 1

    def saw_bytes(self) -> None:
        """Notes when the first bytes of the answer came."""
        if self.first_byte is None:
            self.first_byte = time.monotonic()
