"""`gateway.launch()`: a whole stack from Python, for notebooks and tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from gateway import settings
from gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from openai import OpenAI

#: What is shown of the log when the start fails.
TAIL_LINES = 40

POLL_SECONDS = 0.1

#: More than `serve` itself takes, which ends its children within their drain time and 15 s each.
STOP_SECONDS = 120


class LaunchError(RuntimeError):
    """The stack did not become ready. The message ends with the last lines of its log."""


def launch(
    model: str | Path,
    *,
    port: int = 0,
    admin_port: int = 0,
    engine_args: Sequence[str] = (),
    gateway_args: Sequence[str] = (),
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
    ready_seconds: float = 900,
    log: Path | None = None,
) -> Server:
    """Starts `gemma-gateway serve MODEL` and waits until it answers requests.

    Port 0 is a free port. `engine_args` are flags of `vllm serve`, `gateway_args` flags of `gemma-gateway serve`,
    `config` a file of gateway settings, `env` is added to the environment, `log` gets the output (default: a
    temporary file). Use the result as a context manager, or call its `stop()`; should this process end, so does the
    stack. Raises LaunchError if it exits, or is not ready within `ready_seconds`.
    """
    ports = ["--port", str(port), "--admin-port", str(admin_port)]
    configured = [] if config is None else ["--config", str(config)]
    arguments = [str(model), *ports, *configured, *gateway_args, "--", *engine_args]
    server = Server(arguments, {**settings.environment(), **(env or {})}, log)
    try:
        server.wait_until_ready(ready_seconds)
    except BaseException:
        server.stop()
        raise
    return server


class Server:
    """A running stack."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gemma-launch-"))
            self._folder = Path(folder)
            #: Everything that `serve`, the engine and the gateway print.
            self.log_path = log or self._folder / "serve.log"
            command = [sys.executable, "-m", "gateway", "serve", "--supervised", "--runtime-dir", folder, *arguments]
            output = stack.enter_context(self.log_path.open("ab"))
            #: `serve` itself: send it SIGTERM for the orderly end.
            self.process = _start(command, environment, output)
            self._stack = stack.pop_all()

    def __repr__(self) -> str:
        code = self.process.poll()
        return f"<Server {self._state().get('url')} {'running' if code is None else f'exited with {code}'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The gateway's address, such as `http://127.0.0.1:8000`."""
        return str(self._state()["url"])

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call base URL: the address with `/v1`."""
        return f"{self.url}/v1"

    @property
    def admin_url(self) -> str:
        """Address of /metrics, /livez and /readyz."""
        return str(self._state()["admin_url"])

    @property
    def engine_socket(self) -> Path:
        """The Unix socket of the engine; vLLM's own /metrics is there."""
        return Path(self._state()["engine_socket"])

    @property
    def engine_pid(self) -> int | None:
        """The engine's API process, leader of the engine's process group. None: not running just now."""
        pid = self._state()["engine_pid"]
        return None if pid is None else int(pid)

    @property
    def gateway_pid(self) -> int | None:
        """The gateway's process. None: not running just now."""
        pid = self._state()["gateway_pid"]
        return None if pid is None else int(pid)

    @property
    def engine_pids(self) -> list[int]:
        """All processes of the engine: API process, EngineCore and workers."""
        leader = self.engine_pid
        return [] if leader is None else group_members(leader)

    @property
    def ready(self) -> bool:
        """Whether engine and gateway answer, as `serve` last saw it."""
        return bool(self._state().get("ready"))

    def openai(self, **options: Any) -> OpenAI:
        """OpenAI's client for this server; `options` are those of `openai.OpenAI`."""
        try:
            import openai
        except ModuleNotFoundError as fault:
            raise ConfigurationError("the OpenAI client is not installed:  pip install openai") from fault
        return openai.OpenAI(**{"base_url": self.base_url, "api_key": "unused", **options})

    def wait_until_ready(self, seconds: float) -> None:
        """Returns when requests are answered. Raises LaunchError if `serve` exits, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.ready:
            if (code := self.process.poll()) is not None:
                raise LaunchError(f"serve exited with code {code}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise LaunchError(f"not ready within {seconds:g} s\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        """Ends the stack in order, running requests first, and returns its exit code. Again: does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Its children see that it is gone, and end.
                self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        code = self.process.wait()
        self._stack.close()
        return code

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._folder / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state


def _start(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        env=environment,
        # Never written to: when this process ends, however it ends, `serve` sees it close.
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def group_members(leader: int) -> list[int]:
    """The processes of a group, without zombies, by Linux's /proc."""
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _in(entry, leader))


def _in(entry: Path, leader: int) -> bool:
    try:
        stat = (entry / "stat").read_text()
    except OSError:
        return False
    # proc(5): "pid (name) state ppid pgrp ..."; the name may hold anything, blanks and brackets too.
    state, _, group = stat.rpartition(")")[2].split()[:3]
    return int(group) == leader and state != "Z"
