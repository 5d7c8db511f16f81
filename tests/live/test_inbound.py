"""What clients send before anybody knows who they are is bounded."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.app import inbound
from tests.live.conftest import Running, Start

LINE = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"


async def sent(gateway: Running, *pieces: bytes) -> bytes:
    """What is answered until the gateway closes the connection, while it takes what is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
    except ConnectionError:
        pass
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


ENDLESS = {
    "many headers": [LINE] + [b"x-%d: %b\r\n" % (number, b"y" * 5000) for number in range(40)],
    "a long header": [LINE + b"x: "] + [b"y" * 10_000] * 20,
    "a long URL": [b"GET /"] + [b"y" * 10_000] * 20,
}


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS.keys())
async def test_headers_without_an_end_are_refused(start: Start, pieces: list[bytes]) -> None:
    gateway = await start()

    answer = await sent(gateway, *pieces)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "headers_too_large"


async def test_headers_of_a_usual_size_pass_in_pieces_and_on_a_kept_connection(start: Start) -> None:
    gateway = await start()
    request = [LINE, b"x: " + b"y" * 16_000, b"y" * 16_000 + b"\r\n"]

    answer = await sent(gateway, *request, b"\r\n", *request, b"connection: close\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("begin", [b"", LINE], ids=["nothing", "half a head"])
async def test_connection_that_never_asks_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(inbound, "HEAD_SECONDS", 0.2)
    gateway = await start()

    assert await sent(gateway, begin) == b""
