"""The connection to the store in which gateways count together: what many requests ask goes in one exchange.

Scripts are the only thing that is run there. One task does it, in order, over one connection, so that there is one
place where the store is found to be gone. It is then not asked again for a second, and after that by a ping that no
request waits for.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway.errors import ConfigurationError
from gateway.settings import StoreSettings

logger = logging.getLogger(__name__)

#: Commands in one exchange, and commands without a caller that wait for the store at most.
_BATCH = 256
_MOST_PENDING = 10_000

#: Seconds between a failure and the next trial.
_PAUSE = 1.0


class StoreError(Exception):
    """The store did not answer, or is known not to."""


@dataclass(frozen=True, slots=True)
class Script:
    """One that the server runs at once or not at all."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # The protocol names scripts so; nothing rests on its strength.
        object.__setattr__(self, "digest", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def load(cls, name: str) -> Script:
        """That in a file of this package."""
        return cls((files("gateway.access") / name).read_text())


@dataclass(frozen=True, slots=True)
class Command:
    """A script with what it is run on. `reply`: who waits for its answer."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | int]
    reply: asyncio.Future[list[int]] | None = None

    def words(self, *, source: bool) -> tuple[str | int, ...]:
        """As the protocol has it: by the script's digest, or by its source where the server does not know it."""
        name = ("EVAL", self.script.source) if source else ("EVALSHA", self.script.digest)
        return (*name, len(self.keys), *self.keys, *self.arguments)


class Store:
    """A Valkey or Redis server.

    `scripts` are all that are run; they are loaded first, so that commands run in their order from the start.
    `renewals` are run every `beat` seconds while there are any. `failures` counts exchanges that failed, and
    `on_failure` is called for each; `available` is False from one that did to one that did not. Raises
    ConfigurationError where the settings cannot be meant.
    """

    def __init__(
        self,
        settings: StoreSettings,
        scripts: Sequence[Script],
        renewals: Callable[[], Iterable[Command]],
        beat: float,
    ) -> None:
        self._client = _client(settings)
        self._address = _address(settings.url or "")
        self._timeout = settings.timeout_seconds
        self._scripts = scripts
        self._loaded = False
        self._renewals = renewals
        self._beat = beat
        self._next_beat = 0.0
        self._pending: deque[Command] = deque()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.failures = 0
        self.available = True
        self.on_failure: Callable[[], object] = _nobody

    def call(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> asyncio.Future[list[int]]:
        """Runs a script; the future gets its answer, or StoreError. Raises StoreError where the store is gone."""
        if not self.available or self._closing.is_set():
            raise StoreError(f"{self._address} is not available")
        reply = asyncio.get_running_loop().create_future()
        self._put(Command(script, keys, arguments, reply))
        return reply

    def post(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> None:
        """Runs a script some time soon, at most once; not if too many wait for the store already."""
        if not self._closing.is_set() and len(self._pending) < _MOST_PENDING:
            self._put(Command(script, keys, arguments))

    async def aclose(self) -> None:
        """Runs what waits, if the store answers, and disconnects."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._client.aclose()

    def _put(self, command: Command) -> None:
        self._pending.append(command)
        self._wake.set()
        if self._task is None or self._task.done():
            # It outlives the request that it begins with, whose id must not be in its log lines.
            self._task = asyncio.create_task(self._run(), name="quota store", context=Context())

    async def _run(self) -> None:
        try:
            while await self._something_to_do():
                if (self.available or await self._is_back()) and (due := self._due()):
                    await self._exchange(due)
        finally:
            self._let_down(self._pending)

    async def _something_to_do(self) -> bool:
        """Waits for it; False where there is none any more."""
        if not self.available:
            return not self._closing.is_set()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(max(self._next_beat, loop.time()) if self._next_beat else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        if self._closing.is_set():
            return bool(self._pending)
        return True

    def _due(self) -> list[Command]:
        """What to run now."""
        due: list[Command] = []
        now = asyncio.get_running_loop().time()
        if now >= self._next_beat:
            due += self._renewals()
            self._next_beat = now + self._beat
        due += (self._pending.popleft() for _ in range(min(_BATCH, len(self._pending))))
        if not self._pending and not self._closing.is_set():
            self._wake.clear()
        return due

    async def _exchange(self, commands: Sequence[Command]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                replies = await self._send(commands)
        except (RedisError, OSError) as error:
            self._failed(commands, error)
            await self._client.connection_pool.disconnect()
        else:
            self._answer(commands, replies)
        finally:
            self._let_down(commands)

    def _answer(self, commands: Sequence[Command], replies: Sequence[list[int]]) -> None:
        for command, reply in zip(commands, replies, strict=True):
            if command.reply is not None and not command.reply.done():
                command.reply.set_result(reply)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies. Raises RedisError or OSError where one of them is an error."""
        if not self._loaded:
            _checked(await self._pipeline(("SCRIPT", "LOAD", script.source) for script in self._scripts))
            self._loaded = True
        replies = await self._pipeline(command.words(source=False) for command in commands)
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        again = await self._pipeline(commands[index].words(source=True) for index in unknown)
        for index, reply in zip(unknown, again, strict=True):
            replies[index] = reply
        return _checked(replies)

    async def _pipeline(self, commands: Iterable[tuple[str | int, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies

    def _failed(self, commands: Iterable[Command], error: Exception) -> None:
        self.failures += 1
        self.on_failure()
        self._loaded = False
        if self.available:
            self.available = False
            logger.warning("quota store %s is gone: %s: %s", self._address, type(error).__name__, error)
        self._let_down(commands)
        waiting = list(self._pending)
        self._pending.clear()
        self._pending.extend(command for command in waiting if command.reply is None)
        self._let_down(waiting)

    def _let_down(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if command.reply is not None and not command.reply.done():
                command.reply.set_exception(StoreError(f"{self._address} did not answer"))

    async def _is_back(self) -> bool:
        """Waits for the pause to pass, and tries."""
        try:
            async with asyncio.timeout(_PAUSE):
                await self._closing.wait()
            return False
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(self._timeout):
                _checked(await self._pipeline([("PING",)]))
        except (RedisError, OSError) as error:
            self._failed((), error)
            await self._client.connection_pool.disconnect()
            return False
        self.available = True
        logger.info("quota store %s is back", self._address)
        return True


def _nobody() -> None:
    """Nobody wants to be told."""


def _checked(replies: list[Any]) -> list[Any]:
    """The replies. Raises the first of them that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _client(settings: StoreSettings) -> Redis:
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, "protocol": 2}
    if settings.password_file is not None:
        options["password"] = _password(settings.password_file)
    try:
        return Redis.from_url(settings.url or "", **options)
    except ValueError:
        raise ConfigurationError(
            "quotas.store.url must be redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"
        ) from None


def _password(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"quotas.store.password_file: cannot read {path}: {error}") from None


def _address(url: str) -> str:
    """The URL without what is secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
