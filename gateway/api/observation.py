"""What is seen of one request from its arrival to its end."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.access.admission import Place
from gateway.access.callers import Caller
from gateway.access.quota import Entry
from gateway.api.estimate import NOTHING, Estimate
from gateway.catalog import Route
from gateway.settings import Modality
from gateway.upstream.sse import Usage

#: What requests are counted under that never got as far as a model.
UNKNOWN = "unknown"

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


def new_request_id() -> str:
    """An id that no other request of any gateway has; vLLM takes it over, so it must never be the client's choice."""
    return f"req-{_prefix}{next(_numbers):08x}"


@dataclass(slots=True)
class Observation:
    """Filled in as the request goes on. Times are monotonic seconds.

    `body_bytes` are held of the budget for bodies. `expected`, and `media_tokens` beside it, are what `entry`, the
    request's charge of its quotas, was made for. `sent`: when an engine got the request. `events` have been passed on.
    """

    path: str
    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)
    caller: Caller | None = None
    route: Route | None = None
    user: str | None = None
    stream: bool = False
    body_bytes: int = 0
    entry: Entry | None = None
    expected: Estimate = NOTHING
    media_tokens: Mapping[Modality, int] | None = None
    place: Place | None = None
    sent: float | None = None
    status: int = 0
    error: str | None = None
    reason: str | None = None
    first_byte: float | None = None
    events: int = 0
    usage: Usage | None = None

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

    def saw_bytes(self) -> None:
        """Notes when the first bytes of the answer came."""
        if self.first_byte is None:
            self.first_byte = time.monotonic()
