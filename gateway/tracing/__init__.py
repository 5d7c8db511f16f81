"""Traces: continues a client's or begins one, has the engine continue it, and sends spans of what the gateway did.

Nothing is made while a request runs. Its spans are made at its end, of the times that were noted anyway, and only if it
is sampled; sending them is a thread's work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from gateway.errors import ConfigurationError
from gateway.settings import TracingSettings
from gateway.tracing.context import Trace, begin
from gateway.tracing.record import Exchange, Phase, RequestRecord

if TYPE_CHECKING:
    from gateway.tracing.export import Export

__all__ = ["Exchange", "Phase", "RequestRecord", "Trace", "Tracer", "check"]


class Tracer:
    """Traces requests. For the event loop's thread."""

    def __init__(self, settings: TracingSettings) -> None:
        """Raises ConfigurationError with the fix where OpenTelemetry is not installed."""
        self._ratio = settings.sample_ratio
        self._export = _export()(settings)

    @classmethod
    def of(cls, settings: TracingSettings) -> Self | None:
        """The one that is configured; None where tracing is off, and then OpenTelemetry is not even imported.

        Raises ConfigurationError with the fix where it is not installed.
        """
        return None if settings.endpoint is None else cls(settings)

    def incoming(self, traceparent: bytes | None, tracestate: bytes | None) -> Trace:
        """The trace of a request that has come with these headers. Several `tracestate` are joined by commas before."""
        return begin(self._ratio, traceparent, tracestate)

    def finish(self, trace: Trace, record: RequestRecord) -> None:
        """Makes the spans of a request that has just ended, unless it is not sampled; sends them later.

        Nothing comes back of it: what cannot be sent is lost, and the log says so once a minute.
        """
        if trace.sampled:
            self._export.add(trace, record)

    async def aclose(self) -> None:
        """Sends what is left, for five seconds at most. What is finished later is lost."""
        await self._export.aclose()


def check(settings: TracingSettings) -> None:
    """Raises ConfigurationError with the fix where tracing is on and OpenTelemetry is not installed."""
    if settings.endpoint is not None:
        _export()


def _export() -> type[Export]:
    try:
        from gateway.tracing.export import Export
    except ImportError as fault:
        raise ConfigurationError(
            "tracing.endpoint is set, and OpenTelemetry is not installed; run  pip install 'gemma-gateway[tracing]'"
        ) from fault
    return Export
