"""Sends spans in batches by OTLP, in a thread of its own: the only importer of OpenTelemetry's SDK beside `spans`.

OTLP over HTTP and not over gRPC: it passes every proxy and ingress, and needs no second HTTP stack with threads of its
own in the process that relays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from gateway.settings import TracingSettings
from gateway.tracing.context import Trace
from gateway.tracing.record import RequestRecord
from gateway.tracing.spans import spans

logger = logging.getLogger("gateway.tracing")

#: Spans that wait to be sent; while the collector is away the oldest are lost.
_KEPT: Final = 8192
#: Spans in one batch, and milliseconds until one is sent that is not full.
_BATCH: Final = 512
_DELAY: Final = 1000
#: Seconds that the end of the gateway waits for the last batches.
_CLOSING: Final = 5.0
#: Seconds between two lines in the log about spans that cannot be sent.
_QUIET: Final = 60.0


class Export:
    """Takes what ended requests tell, and sends their spans."""

    def __init__(self, settings: TracingSettings) -> None:
        _have_faults_told()
        self._resource = _resource(settings)
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers=dict(settings.headers),
            timeout=settings.timeout_seconds,
            compression=Compression.Gzip,
        )
        # All is given, since what is not would be read from the environment.
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=_KEPT,
            schedule_delay_millis=_DELAY,
            max_export_batch_size=_BATCH,
            export_timeout_millis=settings.timeout_seconds * 1000,
        )
        self._closing = min(_CLOSING, settings.timeout_seconds)

    def add(self, trace: Trace, record: RequestRecord) -> None:
        """Makes the spans and leaves them to the thread. Blocks for nothing."""
        for span in spans(trace, record, self._resource):
            self._processor.on_end(span)

    async def aclose(self) -> None:
        """Sends what is left, for a few seconds at most."""
        # A daemon, so that a collector that hangs cannot keep the process from ending.
        ending = threading.Thread(target=self._processor.shutdown, name="tracing-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, self._closing)
        if ending.is_alive():
            logger.warning("the collector did not take the last spans within %g s; they are lost", self._closing)


def _resource(settings: TracingSettings) -> Resource:
    """Who sends the spans. OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": version("gemma-gateway"),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )


class _Faults(logging.Handler):
    """Passes on what OpenTelemetry complains of, but only a line a minute: it logs every try of every batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0
        self._withheld = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._next:
            self._withheld += 1
            return
        self._next = now + _QUIET
        withheld, self._withheld = self._withheld, 0
        more = f" ({withheld} such lines were left out)" if withheld else ""
        logger.warning("traces: %s%s", record.getMessage(), more, exc_info=record.exc_info)


def _have_faults_told() -> None:
    """Once in a process, whose logger it is."""
    library = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Faults) for handler in library.handlers):
        library.addHandler(_Faults())
        library.propagate = False
