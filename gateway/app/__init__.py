"""The composition root: builds the gateway, renews its parts when the configuration changes, and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from gateway import logs, settings
from gateway.access import key_files
from gateway.access.admission import Admission, AdmissionMetrics
from gateway.access.authentication import Access
from gateway.access.jwks import KeySet
from gateway.api import admin
from gateway.api.call import Call
from gateway.api.client import Receive, Scope, Send
from gateway.app import parts
from gateway.app.generation import INFERENCE_URLS, Generation, Lasting
from gateway.app.inbound import Public
from gateway.app.listening import Server, address, bind, grace, server
from gateway.errors import PayloadTooLargeError
from gateway.ledger import Ledger
from gateway.metrics import Metrics
from gateway.settings import Modality, Settings
from gateway.upstream.pool import Engine
from gateway.watch import Watched, watch

logger = logging.getLogger(__name__)

#: What engines that are new in the configuration get to tell that they are ready.
_FIRST_LOOK_SECONDS = 2.0


#: Objects that have come to be, less those that have gone, before they are looked through for garbage.
_GARBAGE = 50_000


class Source:
    """Where the configuration comes from: a file, if any, and what wins over it, nested as the file is."""

    def __init__(self, path: Path | None = None, overrides: dict[str, Any] | None = None) -> None:
        self.path = path
        self._overrides = overrides or {}

    def load(self) -> Settings:
        """Reads it. Raises ConfigurationError."""
        return settings.load(self.path, self._overrides)

    def fingerprint(self) -> Hashable:
        """Changes whenever the file does."""
        return key_files.look(self.path) if self.path else None


class Gateway:
    """The two ASGI applications. Enter it to start what works in the background; leave it to let go of everything."""

    def __init__(self, first: Settings, source: Source | None = None) -> None:
        self.draining = False
        self.metrics = metrics = Metrics()
        self.admission = Admission(first.limits, AdmissionMetrics.of(metrics))
        self._lasting = Lasting(metrics, self.admission, _bodies(first, metrics), int(time.time()))
        self._source = source or Source()
        self.configuration = Watched("configuration", self._source.fingerprint, self.reload, metrics.reloads)
        self._current = Generation(first, parts.make(first, metrics, None), self._lasting)
        self._live = [self._current]
        self.keys = Watched(
            "keys", lambda: key_files.fingerprint(self.settings.auth), self._renew_keys, metrics.reloads
        )
        self._at_work: dict[Engine | Access, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self.admin = admin.application(
            metrics,
            lambda: self.engines,
            lambda: self.draining,
            (self.configuration, self.keys),
            self._store_answers,
            self._provider_faults,
        )
        metrics.store_available.set_function(lambda: self._current.parts.quotas.available)
        for watched in (self.configuration, self.keys):
            metrics.reload_healthy.labels(watched.name).set_function(partial(_healthy, watched))

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._current.settings

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines by name."""
        return dict(self._current.parts.engines)

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """Answers a call of an inference route, once it is awaited, which it must be."""
        return self._current.answer(call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The other public routes."""
        await self._current(scope, receive, send)

    def public_server(self) -> Server:
        """The server for clients."""
        public = Public(INFERENCE_URLS, self.answer, lambda: self.draining)
        return server(self, self.settings.server.drain_seconds, public)

    async def __aenter__(self) -> Self:
        self._start()
        self._spawn(watch([self.configuration, self.keys]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._tasks, *self._at_work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for generation in self._live:
            generation.accounting.flush()
        for part in set().union(*(generation.parts.closable() for generation in self._live)):
            await part.aclose()

    def read_anew(self) -> None:
        """Has configuration and keys read, whether their files have changed or not."""
        self._spawn(self.configuration.read())
        self._spawn(self.keys.read())

    async def reload(self) -> None:
        """Takes over the configuration as its file now has it, as a whole.

        Raises ConfigurationError, and then nothing has changed.
        """
        async with self._reloading:
            await self._take_over(await asyncio.to_thread(self._source.load))

    async def _take_over(self, new: Settings) -> None:
        old = self._current
        if new == old.settings:
            return
        made = parts.make(new, self.metrics, old)
        await _ask_once([engine for engine in made.engines.values() if engine not in self._at_work])
        self.admission.configure(new.limits)
        self._lasting.bodies.limit = new.limits.max_body_bytes_in_flight
        logs.configure(new.logs)
        self._current = Generation(new, made, self._lasting)
        self._live.append(self._current)
        self._start()
        self._spawn(self._retire(old))

    async def _renew_keys(self) -> None:
        """Takes over the keys as their files now have them. Raises ConfigurationError, and then nothing has changed."""
        access = self._current.parts.access
        store = await asyncio.to_thread(parts.keys, self.settings.auth)
        if store is not None:
            access.replace_keys(store)

    def _start(self) -> None:
        """Starts what the parts in force do in the background, as far as it is not going on yet."""
        loop = asyncio.get_running_loop()
        if any(model.modalities > {Modality.TEXT} for model in self.settings.models.values()):
            loop.run_in_executor(None, self._current.parts.media.warm)
        self._current.parts.quotas.report(self.metrics.store_failures.inc)
        access, engines = self._current.parts.access, self._current.parts.engines
        in_force: set[Engine | Access] = {access, *engines.values()}
        for part in in_force - self._at_work.keys():
            work = access.run() if part is access else cast(Engine, part).run(self._on_change)
            self._at_work[part] = asyncio.create_task(work)
        for part in self._at_work.keys() - in_force:
            self._at_work.pop(part).cancel()
            if isinstance(part, Engine) and part.name not in engines:
                parts.forget(part.name, self.metrics)
        if access.tokens is not None:
            self._show_keys(access.tokens.key_sets)

    def _show_keys(self, key_sets: Mapping[str, KeySet]) -> None:
        """Has the metrics tell of token providers' keys."""
        for name, keys in key_sets.items():
            self.metrics.jwks_healthy.labels(name).set_function(partial(getattr, keys, "healthy"))
            self.metrics.jwks_read.labels(name).set_function(partial(_read_at, keys))

    def _store_answers(self) -> bool | None:
        """Whether the store of quotas does; None where none is configured."""
        return self._current.parts.quotas.available if self.settings.quotas.store.url is not None else None

    def _provider_faults(self) -> dict[str, str | None]:
        """Why the keys of token providers could not be read when that was last tried; None for those that could."""
        tokens = self._current.parts.access.tokens
        return {} if tokens is None else {name: keys.fault for name, keys in tokens.key_sets.items()}

    async def _retire(self, old: Generation) -> None:
        """Lets go of what only `old` needs, once its requests have ended."""
        await old.retire()
        self._live.remove(old)
        needed = set().union(*(generation.parts.closable() for generation in self._live))
        for part in old.parts.closable() - needed:
            await part.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_change(self, engine: Engine) -> None:
        self.metrics.engine_ready.labels(engine.name).set(engine.ready)


def _healthy(watched: Watched) -> bool:
    return watched.fault is None


def _read_at(keys: KeySet) -> float:
    """Unix time; 0: never."""
    return keys.fetched_at or 0


def _bodies(first: Settings, metrics: Metrics) -> Ledger:
    """What counts the bodies of requests."""
    return Ledger(
        first.limits.max_body_bytes_in_flight,
        metrics.body_bytes,
        setting="limits.max_body_bytes_in_flight",
        what="request bodies",
        retry_after=None,
        too_large=PayloadTooLargeError,
    )


async def _ask_once(engines: Sequence[Engine]) -> None:
    """Has new engines be known as ready before they are needed, if they are."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_LOOK_SECONDS):
            await asyncio.gather(*(engine.look() for engine in engines))


async def serve(first: Settings, source: Source) -> None:
    """Runs the gateway until SIGTERM or SIGINT, then lets running requests finish; a second signal ends at once.

    SIGHUP has configuration and keys read anew, as a change of their files does.
    """
    gateway = Gateway(first, source)
    sockets = bind(first.server.host, first.server.port, "port", shared=first.server.reuse_port)
    admin_sockets = bind(first.server.admin_host, first.server.admin_port, "admin-port")
    drain = first.server.drain_seconds
    public, inside = gateway.public_server(), server(gateway.admin, drain)

    loop = asyncio.get_running_loop()

    def stop() -> None:
        if gateway.draining:
            public.force_exit = public.should_exit = True
            return
        gateway.draining = True
        drain, delay = gateway.settings.server.drain_seconds, gateway.settings.server.drain_delay_seconds
        public.config.timeout_graceful_shutdown = grace(drain - delay)
        logger.info("draining", extra={"fields": {"seconds": drain, "in_flight": gateway.admission.in_flight}})
        loop.call_later(delay, public.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, gateway.read_anew)
    logger.info("listening", extra={"fields": {"api": address(sockets), "admin": address(admin_sockets)}})
    async with gateway:
        # What is there now stays to the end: looking through it again and again for garbage takes the loop 100 ms.
        gc.collect()
        gc.freeze()
        # A request leaves no cycles behind: what looks for them need not come by after every twenty.
        gc.set_threshold(_GARBAGE, 20, 100)
        running = asyncio.create_task(inside.serve([admin_sockets]))
        await public.serve([sockets])
        inside.should_exit = True
        await running
    logger.info("stopped")


def run(source: Source) -> int:
    """Runs the gateway in this process; the exit code. Raises ConfigurationError before anything is started."""
    import uvloop

    first = source.load()
    logs.configure(first.logs)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(first, source))
    return 0
