"""One GET over an open connection: asks, and reads the answer within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httptools

from gateway.errors import MediaUnreachableError

#: Bytes read at a time.
_READ = 64 * 1024

#: Bytes of head and framing that every answer may have; more than that must be outweighed by body. It ends endless
#: headers, endless interim answers, and chunks of one byte, which cost hundreds of times what they carry.
_OVERHEAD = 64 * 1024

BROKE_OFF = "the server could not be reached, or broke off"


def request(authority: str, target: str, conditions: dict[str, str]) -> bytes:
    """The head of a GET that tells a server nothing of who asks; all arguments in ASCII and free of line breaks."""
    fields = {
        "Host": authority,
        "User-Agent": "gemma-gateway",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **conditions,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode("ascii")


class Answer:
    """A server's answer while it comes in. httptools calls the methods that begin with `on_`.

    `headers` have names in lower case; the values of repeated ones are joined by commas.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._received = 0
        self._carried = 0
        self._head_complete = False
        self._complete = False
        self._fields: dict[str, list[str]] = {}
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def head(self) -> None:
        """Waits until `status` and `headers` are known.

        Raises MediaUnreachableError where the server breaks off or speaks something else.
        """
        while not self._head_complete:
            await self._receive()

    async def read(self) -> bytearray:
        """The bytes of the body that have come since the last call; waits for some; empty at the end.

        Raises MediaUnreachableError as above.
        """
        while not self._body and not self._complete:
            await self._receive()
        taken, self._body = self._body, bytearray()
        return taken

    def is_plain(self) -> bool:
        """Whether the body is as it is, neither compressed nor encoded in another way."""
        encoding = self.headers.get("content-encoding", "identity").lower()
        return encoding == "identity" and self.headers.get("transfer-encoding", "chunked").lower() == "chunked"

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(_READ)
        except OSError as fault:
            raise MediaUnreachableError(BROKE_OFF) from fault
        if not data:
            self._end()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What follows a complete answer is nobody's.
            if not self._complete:
                raise MediaUnreachableError(BROKE_OFF) from None
        if self._received - self._carried > max(_OVERHEAD, self._carried):
            raise MediaUnreachableError("the server sends more headers and framing than data")

    def _end(self) -> None:
        """The server has closed: that ends a body whose length nothing else tells, and breaks off any other."""
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self._head_complete or framed:
            raise MediaUnreachableError(BROKE_OFF)
        self._complete = True

    def on_message_begin(self) -> None:
        """An interim answer (1xx) leaves nothing to the one that follows."""
        self._fields = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("utf-8", "replace"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._head_complete:
            self.status = status
            self.headers = {name: ", ".join(values) for name, values in self._fields.items()}
            self._head_complete = True

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._body += body
            self._carried += len(body)

    def on_message_complete(self) -> None:
        self._complete = self._head_complete
