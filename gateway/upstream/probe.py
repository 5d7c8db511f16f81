"""Asks a replica's /health and /v1/models again and again, so that both are known before a request needs them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum

import msgspec

from gateway.errors import EngineTimeoutError, GatewayError
from gateway.upstream.replica import Replica

#: Longest that a healthy engine takes to say so, in seconds; its event loop may be busy with a large prompt.
ANSWER_SECONDS = 5.0

#: Between two looks at the models, in seconds: adapters are loaded and unloaded while an engine runs.
MODELS_SECONDS = 30.0

#: Until the next look at a replica that is in doubt or not ready; doubled with each, up to `probe_seconds`.
SOON_SECONDS = 0.05


class Health(Enum):
    """What a look shows."""

    READY = "ready"
    UNREADY = "unready"
    SILENT = "silent"


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models)


async def health(replica: Replica) -> Health:
    """What the replica's /health says."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, _ = await replica.get("/health")
    except (TimeoutError, EngineTimeoutError):
        return Health.SILENT
    except GatewayError:
        return Health.UNREADY
    return Health.READY if status == 200 else Health.UNREADY


async def models(replica: Replica) -> frozenset[str] | None:
    """The names of what the replica serves, adapters included; None where it does not say."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, body = await replica.get("/v1/models")
        return frozenset(model.id for model in _models.decode(body).data) if status == 200 else None
    except (TimeoutError, GatewayError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Probe:
    """The looks at one replica. `tell` gets the verdict of each."""

    def __init__(self, replica: Replica, seconds: float, tell: Callable[[Replica, bool], None]) -> None:
        self._replica = replica
        self._seconds = seconds
        self._tell = tell
        self._bad = 0
        self._models_asked = float("-inf")

    async def run(self) -> None:
        """Looks until cancelled: each `probe_seconds` while all is well, and soon after a doubt."""
        doubted = self._replica.doubted
        while True:
            doubted.clear()
            self._tell(self._replica, await self.look())
            try:
                async with asyncio.timeout(self._pause()):
                    await doubted.wait()
            except TimeoutError:
                continue
            # Not at once: what has just refused a connection needs a moment.
            self._bad = 1
            await asyncio.sleep(self._pause())

    async def look(self) -> bool:
        """Whether the replica may get requests. Its models are known by then."""
        found = await health(self._replica)
        # A busy event loop is no dead engine: only the second silence in a row counts.
        excused = found is Health.SILENT and self._bad == 0 and bool(self._replica.healthy)
        self._bad = 0 if found is Health.READY else self._bad + 1
        if found is Health.READY:
            await self._look_at_models()
        ready = found is Health.READY or excused
        self._replica.seen_down += not ready
        return ready

    async def _look_at_models(self) -> None:
        now = asyncio.get_running_loop().time()
        replica = self._replica
        if not replica.healthy or now >= self._models_asked + MODELS_SECONDS:
            self._models_asked = now
            # What was known of one that has been ready all along is better than nothing.
            replica.models = await models(replica) or (replica.models if replica.healthy else None)

    def _pause(self) -> float:
        """Seconds until the next look. Gateways must not look in step."""
        if self._bad == 0:
            return self._seconds
        soon = SOON_SECONDS * 2.0 ** min(self._bad - 1, 16) * random.uniform(1, 2)  # noqa: S311 - no secret
        return min(soon, self._seconds)
