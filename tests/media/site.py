"""A small real web server that counts who connects."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: A raw answer, whole or in pieces, of which there may be endlessly many. None is silence until the client leaves.
Page = bytes | Iterable[bytes | None] | None
#: Path to the page, or to what finds it from the head of the request.
Pages = Mapping[str, Page | Callable[[bytes], Page]]


@dataclass
class Site:
    """What was seen of it so far."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a client has left during silence."""

    def paths(self) -> list[str]:
        return [head.split()[1].decode() for head in self.requests]


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    fields = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", status, location=location)


@asynccontextmanager
async def serve(
    pages: Pages, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, pause: float = 0, port: int = 0
) -> AsyncIterator[Site]:
    """Serves until the block ends; with `pause`, in seconds, each byte by itself."""
    site = Site()
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            site.requests.append(head)
            page = pages.get(head.split()[1].decode(), answer(b"", "404 Not Found"))
            for piece in _pieces(page(head) if callable(page) else page, pause):
                if piece is None:
                    await reader.read()
                    site.gone.set()
                else:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.connections += 1
        talks.add(asyncio.create_task(talk(reader, writer)))

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield site
        finally:
            await asyncio.wait_for(asyncio.gather(*talks), 5)


def _pieces(page: Page, pause: float) -> Iterable[bytes | None]:
    if not isinstance(page, bytes):
        return [None] if page is None else page
    return [page[i : i + 1] for i in range(len(page))] if pause else [page]
