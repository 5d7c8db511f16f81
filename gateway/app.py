"""The composition root: builds the gateway out of its parts and runs it. The only module that knows everyone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from gateway import logs
from gateway.access.admission import Admission
from gateway.access.keys import Access
from gateway.api import admin, description, handlers, models
from gateway.api.client import Receive, Scope, Send
from gateway.api.dialects import INFERENCE_PATHS
from gateway.api.edge import Edge
from gateway.api.inference import Inference
from gateway.api.middleware import RequestLog
from gateway.api.speech import PATHS
from gateway.api.transcriptions import Transcriptions
from gateway.catalog import Catalog
from gateway.errors import ConfigurationError
from gateway.media.inline import Media
from gateway.metrics import Metrics
from gateway.settings import Modality, Settings
from gateway.upstream import probe
from gateway.upstream.pool import Engine

logger = logging.getLogger(__name__)

#: Load balancers keep connections open for 60 s or more; closing before they do loses requests.
KEEP_ALIVE_SECONDS = 75


class Gateway:
    """The two ASGI applications and what they share. Enter it to watch the engines; leave it to let go of them."""

    def __init__(self, settings: Settings) -> None:
        if not settings.engines:
            raise ConfigurationError(
                "no engine is configured; add to the configuration file:\n"
                "  engines:\n    default: {url: 'http://127.0.0.1:8001'}\n"
                "  models:\n    gemma: {served_name: google/gemma-3-4b-it}"
            )
        self.settings = settings
        self.draining = False
        self.metrics = Metrics()
        self.engines = {name: Engine(name, engine) for name, engine in settings.engines.items()}
        self._media = Media(settings.media, self.metrics)
        self._watchers: list[asyncio.Task[None]] = []
        access = Access.from_settings(settings.auth, settings.server.host)
        catalog = Catalog(settings.models)
        self.admission = Admission(settings.limits, self.metrics.in_flight)
        edge = Edge(settings, access, catalog, self.admission, self.metrics)
        inference = Inference(edge, self._media, self.engines)
        speech = Transcriptions(edge, self._media, self.engines)
        self._routes = dict.fromkeys(INFERENCE_PATHS, inference) | dict.fromkeys(PATHS, speech)
        self._rest = RequestLog(_rest(access, catalog))
        self.admin = admin.application(self.metrics, self.engines, lambda: self.draining)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The public application: inference apart, FastAPI answers."""
        await self._routes.get(scope["path"], self._rest)(scope, receive, send)

    async def __aenter__(self) -> Self:
        if any(model.modalities > {Modality.TEXT} for model in self.settings.models.values()):
            asyncio.get_running_loop().run_in_executor(None, self._media.warm)
        self._watchers = [asyncio.create_task(probe.watch(e, self._on_change)) for e in self.engines.values()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for engine in self.engines.values():
            engine.close()
        await self._media.aclose()

    def _on_change(self, engine: Engine) -> None:
        self.metrics.engine_ready.labels(engine.name).set(engine.ready)


def _rest(access: Access, catalog: Catalog) -> FastAPI:
    app = FastAPI(title="gemma-gateway", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(models.router(access, catalog, created=int(time.time())))
    handlers.install(app)
    app.openapi = partial(description.describe, app)  # type: ignore[method-assign]
    return app


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers: two run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: object, settings: Settings) -> _Server:
    drain = settings.server.drain_seconds
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain)),
    )
    return _Server(config)


def _bind(host: str, port: int, what: str) -> socket.socket:
    """Raises ConfigurationError with the fix where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as fault:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {fault.strerror}; choose another with --{what}"
        ) from fault
    return listener


async def serve(settings: Settings) -> None:
    """Runs the gateway until SIGTERM or SIGINT, then lets running requests finish; a second signal ends at once."""
    gateway = Gateway(settings)
    sockets = _bind(settings.server.host, settings.server.port, "port")
    admin_sockets = _bind(settings.server.admin_host, settings.server.admin_port, "admin-port")
    public, inside = _server(gateway, settings), _server(gateway.admin, settings)

    def stop() -> None:
        public.force_exit = gateway.draining
        gateway.draining = True
        public.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    logger.info("listening", extra={"fields": {"api": _address(sockets), "admin": _address(admin_sockets)}})
    async with gateway:
        running = asyncio.create_task(inside.serve([admin_sockets]))
        await public.serve([sockets])
        inside.should_exit = True
        await running
    logger.info("stopped")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(settings: Settings) -> int:
    """Runs the gateway in this process; the exit code."""
    import uvloop

    logs.configure(settings.logs)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
    return 0
