"""One reading of the configuration, as the application that serves by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from fastapi import FastAPI

from gateway.access.admission import Admission
from gateway.access.authentication import Access
from gateway.access.quota import Quotas
from gateway.api import description, handlers, models
from gateway.api.accounting import Accounting, KeyLabels
from gateway.api.call import Call
from gateway.api.client import Receive, Scope, Send
from gateway.api.dialects import INFERENCE_PATHS
from gateway.api.edge import Edge
from gateway.api.inference import Inference
from gateway.api.middleware import RequestLog
from gateway.api.speech import PATHS
from gateway.api.subjects import Subjects
from gateway.api.transcriptions import Transcriptions
from gateway.catalog import Catalog
from gateway.ledger import Ledger
from gateway.logs.access import AccessLog
from gateway.media.inline import Media
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracing import Tracer
from gateway.upstream.pool import Engine
from gateway.usage_log import UsageLog


class Closable(Protocol):
    """Something that holds connections, files or processes."""

    async def aclose(self) -> None:
        """Lets go of them."""
        ...


Handler = Callable[[Call], Coroutine[Any, Any, None]]

#: What `answer` is for, by how it stands in a request.
INFERENCE_URLS: Mapping[bytes, str] = MappingProxyType({path.encode(): path for path in (*INFERENCE_PATHS, *PATHS)})


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlives every configuration: what is going on, and what has been counted."""

    metrics: Metrics
    admission: Admission
    bodies: Ledger
    started: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What is made of one section of the configuration each, and is made anew only where that changes."""

    access: Access
    quotas: Quotas
    usage_log: UsageLog | None
    labels: KeyLabels
    media: Media
    engines: Mapping[str, Engine]
    tracer: Tracer | None

    def closable(self) -> set[Closable]:
        """What has to be closed in the end."""
        parts = {self.access, self.quotas, self.usage_log, self.media, self.tracer, *self.engines.values()}
        return {part for part in parts if part is not None}


class Generation:
    """Serves by one configuration. The requests that it has begun end in it, while later ones go to its successor."""

    def __init__(self, settings: Settings, parts: Parts, lasting: Lasting) -> None:
        self.settings = settings
        self.parts = parts
        self._in_flight = 0
        self._retired = False
        self._idle = asyncio.Event()
        catalog = Catalog(settings.models)
        log = AccessLog(settings.logs, on=settings.server.access_log)
        self.accounting = Accounting(lasting.metrics, parts.labels, parts.usage_log, parts.tracer, log)
        self.edge = edge = Edge(
            settings=settings,
            access=parts.access,
            catalog=catalog,
            subjects=Subjects(settings.quotas),
            quotas=parts.quotas,
            admission=lasting.admission,
            bodies=lasting.bodies,
            accounting=self.accounting,
            tracer=parts.tracer,
            ended=self._end_one,
            metrics=lasting.metrics,
        )
        inference = Inference(edge, parts.media, parts.engines)
        speech = Transcriptions(edge, parts.media, parts.engines)
        self._handlers: Mapping[str, Handler] = MappingProxyType(
            dict.fromkeys(INFERENCE_PATHS, inference) | dict.fromkeys(PATHS, speech)
        )
        self._rest = RequestLog(_rest(edge, lasting.started), log)

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """Answers a call of an inference route, once it is awaited, which it must be."""
        self._in_flight += 1
        return self._handlers[call.path](call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The other routes, as an ASGI application."""
        self._in_flight += 1
        try:
            await self._rest(scope, receive, send)
        finally:
            self._end_one()

    def _end_one(self) -> None:
        """One of its requests has ended."""
        self._in_flight -= 1
        if self._retired and not self._in_flight:
            self._idle.set()

    async def retire(self) -> None:
        """Waits until every request that it has begun has ended. None begins any more."""
        self._retired = True
        if self._in_flight:
            await self._idle.wait()
        self.accounting.flush()


def _rest(edge: Edge, started: int) -> FastAPI:
    app = FastAPI(title="gemma-gateway", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(models.router(edge.authenticate, lambda: edge.catalog, started))
    handlers.install(app)
    app.openapi = partial(description.describe, app)  # type: ignore[method-assign]
    return app
