"""Turns what `serve` was asked for into the commands, the gateway's configuration and the socket that join them."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from gateway import settings as configuration
from gateway.app import parts
from gateway.engine.presets import Preset, recognise, revision_of
from gateway.engine.service import Command
from gateway.engine.supervisor import Output, Supervisor
from gateway.errors import ConfigurationError, GatewayError
from gateway.media.budget import IMAGE_BUDGETS
from gateway.settings import EngineSettings, ServerSettings, Settings
from gateway.upstream.pool import Engine

#: The engine that `serve` starts, as the configuration calls it.
ENGINE = "default"

#: Longest path of a Unix socket, in bytes, without the closing zero (sun_path in Linux's unix(7)).
MAX_SOCKET_PATH = 107

#: Between two looks of the gateway at its engine, in seconds: on one machine a look costs next to nothing.
PROBE_SECONDS = 0.5

#: Longest wait for the answer to a probe, in seconds.
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What `serve` was asked for. `overrides` are the gateway's settings given as flags, nested as in the file."""

    model: str
    engine_args: Sequence[str] = ()
    served_name: str | None = None
    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    runtime_dir: Path | None = None
    warm_up: bool = True

    @property
    def name(self) -> str:
        """The model's name for clients: a directory's own name, or the id on the hub."""
        if self.served_name:
            return self.served_name
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model


def run(request: Request, say: Callable[[str], None], announce: Callable[[str], None]) -> int:
    """Serves until told to stop; the exit code. Raises ConfigurationError before anything is started."""
    preset = recognise(request.model, revision_of(request.engine_args))
    with ExitStack() as stack:
        folder = stack.enter_context(_runtime_dir(request.runtime_dir))
        settings = effective_settings(request, preset, folder / "engine.sock")
        parts.check(settings)
        (folder / "gateway.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
        output = Output(say, announce, partial(_record, folder, settings.server))
        supervisor = partial(
            Supervisor,
            engine_command(request, settings, folder),
            gateway_command(settings, folder),
            output,
            example=example(settings, request.name),
            drain_seconds=settings.server.drain_seconds,
        )
        return asyncio.run(_supervise(supervisor))


async def _supervise(supervisor: Callable[[], Supervisor]) -> int:
    return await supervisor().run()


def effective_settings(request: Request, preset: Preset, engine_socket: Path) -> Settings:
    """The gateway's settings: what the user has configured, with our engine and its model added.

    Port 0 becomes a free port here, so that a gateway that is started again is found where it was.
    Raises ConfigurationError for a configuration or a port that cannot be used.
    """
    engine = {"url": f"unix:{engine_socket}", "probe_seconds": PROBE_SECONDS}
    overrides = {**request.overrides, "engines": {ENGINE: engine}}
    settings = configuration.load(request.config, overrides, partial(_with_model, request, preset))
    return settings.model_copy(update={"server": free_ports(settings.server)})


def _with_model(request: Request, preset: Preset, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with the model under its own name and `*`; what the user's own leave out is as the model is."""
    ours = {
        "engine": ENGINE,
        "served_name": request.name,
        "family": preset.family,
        "modalities": preset.modalities,
        "max_model_len": context_length(request.engine_args) or preset.max_model_len,
        "image_budget": image_budget(request.engine_args) or preset.image_budget,
    }
    theirs = {name: _completed(model, ours) for name, model in (tree.get("models") or {}).items()}
    return {**tree, "models": {request.name: ours, "*": ours, **theirs}}


def _completed(model: Any, ours: Mapping[str, Any]) -> Any:
    """A model of ours as the user has it; names for others, and models of other engines, stay as they are."""
    if model is None:
        return ours
    if (
        not isinstance(model, dict)
        or model.get("targets")
        or model.get("base")
        or model.get("engine", ENGINE) != ENGINE
    ):
        return model
    return {**ours, **model}


def context_length(engine_args: Sequence[str]) -> int | None:
    """The value of --max-model-len among vLLM's flags, where it is a plain number."""
    value = _last(engine_args, "--max-model-len")
    return int(value) if value and value.isdecimal() else None


def image_budget(engine_args: Sequence[str]) -> int | None:
    """The `max_soft_tokens` in --mm-processor-kwargs among vLLM's flags: the engine's default for an image."""
    try:
        given = json.loads(_last(engine_args, "--mm-processor-kwargs") or "{}")
        tokens = given.get("max_soft_tokens") or given.get("images_kwargs", {}).get("max_soft_tokens")
    except (ValueError, AttributeError):
        return None  # vLLM itself says what is wrong with it
    return tokens if tokens in IMAGE_BUDGETS else None


def _last(engine_args: Sequence[str], flag: str) -> str | None:
    """The value of a flag: where it stands twice, the last counts."""
    words = [word for argument in engine_args for word in argument.split("=", 1)]
    return next((value for name, value in reversed(list(pairwise(words))) if name == flag), None)


def free_ports(server: ServerSettings) -> ServerSettings:
    """The same with both ports known and seen to be free. Raises ConfigurationError with the fix."""
    with ExitStack() as stack:
        port = _probe_port(stack, server.host, server.port, "--port")
        admin_port = _probe_port(stack, server.admin_host, server.admin_port, "--admin-port")
    return server.model_copy(update={"port": port, "admin_port": admin_port})


def _probe_port(stack: ExitStack, host: str, port: int, flag: str) -> int:
    """Binds for a moment. It cannot be reserved, but the usual fault is found before minutes of loading."""
    listener = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    # As servers do: a connection that was closed a minute ago is no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as fault:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {fault.strerror}. Choose another port:  {flag} {port + 1}\n"
            f"or see what uses this one:  ss -ltnp 'sport = :{port}'"
        ) from fault
    return int(listener.getsockname()[1])


@contextmanager
def _runtime_dir(given: Path | None) -> Iterator[Path]:
    """A private folder for the socket and the files of this run; ours is removed in the end, a given one stays."""
    with ExitStack() as stack:
        folder = given or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemma-gateway-")))
        if len(bytes(folder.absolute() / "engine.sock")) > MAX_SOCKET_PATH:
            raise ConfigurationError(
                f"{folder} is too long a path for a Unix socket ({MAX_SOCKET_PATH} bytes at most); "
                "use a shorter one:  --runtime-dir /run/gemma"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield folder.absolute()


def engine_command(request: Request, settings: Settings, folder: Path) -> Command:
    """`gemma-gateway engine`. It is ready when it answers through the gateway, which then has seen it, too."""
    engine, admin = folder / "engine.sock", admin_url(settings.server)
    options = ["--uds", str(engine), "--drain-seconds", f"{settings.server.drain_seconds:g}"]
    options += [] if request.warm_up else ["--no-warm-up"]
    named = ["--served-model-name", request.name]

    async def ready() -> bool:
        return await answers(f"unix:{engine}", "/health") and await answers(admin, "/readyz")

    argv = [*_ourselves("engine"), request.model, *options, "--", *named, *request.engine_args]
    return Command("engine", argv, ready, configuration.environment())


def gateway_command(settings: Settings, folder: Path) -> Command:
    """`gemma-gateway gateway`. The file says all: variables of the environment went into it."""
    variables = {
        name: value for name, value in configuration.environment().items() if not name.startswith("GEMMA_GATEWAY_")
    }
    argv = [*_ourselves("gateway"), "--config", str(folder / "gateway.yaml")]
    return Command("gateway", argv, partial(answers, admin_url(settings.server), "/livez"), variables)


def _ourselves(command: str) -> list[str]:
    return [sys.executable, "-m", "gateway", command, "--supervised"]


async def answers(url: str, path: str) -> bool:
    """Whether a GET is answered with 200."""
    engine = Engine("probe", EngineSettings(url=url, connect_seconds=ANSWER_SECONDS))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            with await engine.send(b"GET", path) as reply:
                await reply.read_all()
                return reply.status == 200
    except (GatewayError, TimeoutError):
        return False
    finally:
        await engine.aclose()


def base_url(server: ServerSettings) -> str:
    """Where a client on this machine reaches the inference API."""
    return _url(server.host, server.port)


def admin_url(server: ServerSettings) -> str:
    """Where this machine reaches /metrics, /livez and /readyz."""
    return _url(server.admin_host, server.admin_port)


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def example(settings: Settings, name: str) -> str:
    """A curl to paste into a shell."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}
    key = ' -H "authorization: Bearer $KEY"' if settings.auth.keys_file else ""
    return (
        f"curl {base_url(settings.server)}/v1/chat/completions -H 'content-type: application/json'{key} "
        f"-d {shlex.quote(json.dumps(body))}"
    )


def _record(folder: Path, server: ServerSettings, engine: int | None, gateway: int | None, ready: bool) -> None:
    """Writes state.json: for `gateway.launch`, and for people who look."""
    state = {
        "url": base_url(server),
        "admin_url": admin_url(server),
        "engine_socket": str(folder / "engine.sock"),
        "engine_pid": engine,
        "gateway_pid": gateway,
        "ready": ready,
    }
    unfinished = folder / "state.json.new"
    unfinished.write_text(json.dumps(state))
    unfinished.replace(folder / "state.json")
