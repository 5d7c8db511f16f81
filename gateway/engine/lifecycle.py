"""The life of a loaded engine: warmed up, ready, drained; or dead, with the cause in the log."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from argparse import Namespace
from time import monotonic
from typing import Any

from gateway.engine import warmup
from gateway.engine.gemmas import Preset
from gateway.engine.readiness import Gate, Phase
from gateway.settings import Modality

log = logging.getLogger(__name__)

#: Between two looks at whether the engine core lives, in seconds.
WATCH_SECONDS = 0.5

#: How long connections may take to close once no request is running, in seconds.
CLOSE_SECONDS = 1


class EngineService:
    """One loaded engine on the network."""

    def __init__(self, engine: Any, application: Any, args: Namespace, drain_seconds: float) -> None:
        self._engine = engine
        self._application = application
        self._args = args
        self._drain_seconds = drain_seconds
        self._gate = Gate(application)
        self._server = _http_server(self._gate, args)
        self._stop = asyncio.Event()
        # vLLM's error handlers look for it, to end the server when the engine has died.
        application.state.server = self._server
        self._children = multiprocessing.active_children()

    async def run(self, listener: socket.socket, preset: Preset, start: float, *, warm_up: bool) -> int:
        """Serves until the end, whatever brings it; the exit code. `start` is the process's, on the monotonic clock."""
        self._handle_signals()
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        endings = {serving, asyncio.create_task(self._stop.wait()), asyncio.create_task(self._died())}
        warming = asyncio.create_task(self._become_ready(preset, start, warm_up))
        try:
            return await self._await_end(endings, warming)
        finally:
            for task in (*endings - {serving}, warming):
                task.cancel()
            self._server.should_exit = True
            await asyncio.wait({serving})

    async def _await_end(self, endings: set[asyncio.Task[Any]], warming: asyncio.Task[None]) -> int:
        await asyncio.wait({*endings, warming}, return_when=asyncio.FIRST_COMPLETED)
        if warming.done() and (fault := warming.exception()):
            log.error("%s", fault, exc_info=None if isinstance(fault, warmup.WarmUpError) else fault)
            return 1
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        if self._engine.errored:
            log.error("the engine core died: %s", self._cause_of_death())
            return 1
        if not self._stop.is_set():
            log.error("the HTTP server ended by itself")
            return 1
        await self._drain()
        return 0

    async def _become_ready(self, preset: Preset, start: float, warm_up: bool) -> None:
        if warm_up:
            tokenizer = self._engine.get_tokenizer()
            has_template = bool(self._args.chat_template or getattr(tokenizer, "chat_template", None))
            model = self._args.served_model_name[0]
            probes = list(warmup.probes(model, self._modalities(preset), has_template=has_template))
            await warmup.warm_up(self._application, probes, (self._args.api_key or [None])[0])
        if self._gate.phase is Phase.WARMING_UP:
            self._gate.phase = Phase.READY
            log.info("ready in %.1f s", monotonic() - start)

    def _modalities(self, preset: Preset) -> set[Modality]:
        """What it takes, less what flags have turned off (`--limit-mm-per-prompt '{"image": 0}'`)."""
        media = self._engine.model_config.multimodal_config
        return {
            kind for kind in preset.modalities if kind is Modality.TEXT or (media and media.get_limit_per_prompt(kind))
        }

    async def _died(self) -> None:
        while not self._engine.errored:  # noqa: ASYNC110 - vLLM has a flag and no event
            await asyncio.sleep(WATCH_SECONDS)

    def _cause_of_death(self) -> str:
        ended = [child for child in self._children if not child.is_alive()]
        told = [f"{child.name} (pid {child.pid}) {_ending(child.exitcode)}" for child in ended]
        return ", ".join(told) or "see the log above"

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal asks for the orderly end, another one ends everything at once."""
        if self._gate.phase is Phase.DRAINING:
            log.warning("second signal: ending at once, %d requests cut off", self._gate.running)
            for child in self._children:
                child.kill()
            os._exit(128 + number)
        self._gate.phase = Phase.DRAINING
        self._stop.set()

    async def _drain(self) -> None:
        log.info("draining: %d requests running, %g s at most", self._gate.running, self._drain_seconds)
        try:
            async with asyncio.timeout(self._drain_seconds):
                await self._gate.idle()
        except TimeoutError:
            log.warning("drain time over: %d requests cut off", self._gate.running)


def _http_server(gate: Gate, args: Namespace) -> Any:
    import uvicorn
    from vllm import envs
    from vllm.entrypoints.launchers.launcher import NoSignalServer

    config = uvicorn.Config(
        gate,
        log_config=None,
        log_level=args.uvicorn_log_level,
        access_log=not args.disable_uvicorn_access_log,
        timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
    )
    return NoSignalServer(config)


def _ending(code: int | None) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with code {code}"
