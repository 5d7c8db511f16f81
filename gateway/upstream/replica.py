"""One replica of an engine: its connections, and what is known of its state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from urllib.parse import urlsplit

from gateway.errors import EngineFailedError, EngineUnavailableError
from gateway.protocol import Buffer
from gateway.settings import EngineSettings
from gateway.upstream.connecting import connect
from gateway.upstream.connection import Connection, StaleConnectionError
from gateway.upstream.ejection import Ejection
from gateway.upstream.policies import Choice

#: How long a replica that is full is passed over where it does not say, and at most, in seconds.
BUSY_SECONDS = 1.0
LONGEST_BUSY_SECONDS = 30.0

#: uvicorn, and so vLLM, closes a connection that was idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): be earlier.
KEEP_ALIVE_SECONDS = 4.0

_CUT = "The engine closed the connection before the reply was complete."


class Replica:
    """Sends requests to one address over connections that it keeps, the latest used first.

    `healthy` is the last word of the probe, None before the first. `models` are those that it says it serves, None
    where that is unknown. `elsewhere` is the load that others put on it, in requests.
    """

    def __init__(self, url: str, settings: EngineSettings) -> None:
        self.url = url
        self.name = url.removeprefix("http://")
        self.in_flight = 0
        self.elsewhere = 0.0
        self.healthy: bool | None = None
        self.models: frozenset[str] | None = None
        self.ejection = Ejection(settings.ejection)
        #: On the loop's clock: until when it is passed over, and until when its Retry-After asks to wait.
        self.busy_until = self.full_until = 0.0
        #: How often the probe has found it not ready.
        self.seen_down = 0
        #: Set to have it probed soon.
        self.doubted = asyncio.Event()
        #: Made once: choosing among one must cost nothing.
        self.alone = Choice(self, "the only replica")
        self._settings = settings
        self._idle: list[Connection] = []
        self._retired = False
        host = urlsplit(url).netloc or "engine"
        self._head_end = f" HTTP/1.1\r\nhost: {host}\r\n".encode()

    def __repr__(self) -> str:
        return f"<Replica {self.name} healthy={self.healthy} in_flight={self.in_flight} idle={len(self._idle)}>"

    @property
    def state(self) -> str:
        """In a word, for people."""
        if not self.healthy:
            return "not asked yet" if self.healthy is None else "not ready"
        return "ejected" if self.ejection.until else "ready"

    @property
    def load(self) -> float:
        """Requests on it: ours, and what others send it."""
        return self.in_flight + self.elsewhere

    @property
    def idle(self) -> int:
        """Connections that are kept for reuse."""
        return len(self._idle)

    async def exchange(self, method: bytes, path: str, body: Sequence[Buffer], headers: bytes) -> Connection:
        """Sends a request; the connection once the reply's headers have come, and of a stream of events the first
        bytes, for vLLM sends those headers before it has anything to say. Cancelling it makes the engine stop.

        `headers` are whole lines.

        Raises EngineUnavailableError where nothing was sent, else EngineFailedError or EngineTimeoutError.
        """
        length = sum(map(len, body))
        head = b"%b %b%bcontent-length: %d\r\n%b\r\n" % (method, path.encode(), self._head_end, length, headers)
        connection = self._kept() or await connect(self._settings, self.url)
        while True:
            try:
                await connection.exchange(head, body)
                if not connection.complete and _is_stream(connection):
                    await connection.wait_for_body()
            except StaleConnectionError as fault:
                connection.close()
                if not connection.reused:
                    raise EngineFailedError(_CUT) from fault
            except BaseException:
                connection.close()
                raise
            else:
                return connection
            connection = await self._fresh()

    async def get(self, path: str, most: int = 4 << 20) -> tuple[int, bytes]:
        """Status and body, `most` bytes of it at most, of a GET that is none of the clients' requests.

        Raises as `exchange` does.
        """
        connection = await self.exchange(b"GET", path, (), b"")
        try:
            return connection.status, await read_up_to(connection, most)
        finally:
            self.keep(connection)

    def keep(self, connection: Connection) -> None:
        """Takes a connection back after its exchange, for reuse if it can be."""
        if connection.reusable and not self._retired and len(self._idle) < self._settings.max_idle_connections:
            connection.reused = True
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def close_idle(self) -> None:
        """Drops the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def retire(self) -> None:
        """Drops the kept connections, and from now on keeps none. What runs goes on."""
        self._retired = True
        self.close_idle()

    def busy(self, now: float, retry_after: bytes | None) -> None:
        """Takes note of a 429 or 503, and of what its Retry-After says in seconds."""
        told = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
        self.full_until = now + told if told is not None else 0.0
        self.busy_until = now + min(BUSY_SECONDS if told is None else told, LONGEST_BUSY_SECONDS)

    def doubt(self) -> None:
        """Has it probed soon."""
        self.doubted.set()

    async def _fresh(self) -> Connection:
        """In place of one that turned out to be closed. The request may have come through on that, and may be why:
        that nothing listens any more is then no sign that nothing was sent.
        """
        try:
            return await connect(self._settings, self.url)
        except EngineUnavailableError as fault:
            self.doubt()
            raise EngineFailedError(_CUT) from fault

    def _kept(self) -> Connection | None:
        if not self._idle:
            return None
        oldest = monotonic() - KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None


def _is_stream(connection: Connection) -> bool:
    return connection.status == 200 and connection.headers.get(b"content-type", b"").startswith(b"text/event-stream")


async def read_up_to(connection: Connection, most: int) -> bytes:
    """The rest of a reply's body, or about `most` bytes of it. Raises EngineFailedError or EngineTimeoutError."""
    chunks: list[bytes] = []
    size = 0
    while size < most and (chunk := await connection.read()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
