"""What clients send before anybody knows who they are is bounded."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

from gateway.api.call import fields
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


BODY = json.dumps({"model": "gemma", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"model": "gemma", "messages": [], "stream": True}).encode()


def chat(*lines: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    """A chat request with further lines in its head."""
    length = b"content-length: %d" % len(body)
    head = [b"POST /v1/chat/completions HTTP/" + version, b"host: x", b"content-type: application/json", length, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_requests_follow_each_other_on_one_connection(start: Start) -> None:
    gateway = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))

    for _ in range(20):
        writer.write(chat())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" not in head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        await reader.readexactly(int(length.partition(b": ")[2]))
    writer.write(chat(b"connection: close"))
    last = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert last.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in last


def large(text: str, size: int = 300_000) -> bytes:
    """A body that is more than what is read ahead of its handler."""
    return json.dumps({"model": "gemma", "messages": [{"role": "user", "content": text * size}]}).encode()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The status line of the next answer, which is read to its end."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    await reader.readexactly(int(length.partition(b": ")[2]))
    return head.partition(b"\r\n")[0]


async def test_large_and_small_requests_follow_each_other_on_one_connection(start: Start) -> None:
    gateway = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    bodies = [large("a"), BODY, large("b"), large("c", 70_000), large("d", 3_000_000), BODY]

    for body in bodies:
        writer.write(chat(body=body))
        assert await answered(reader) == b"HTTP/1.1 200 OK"
    writer.close()

    assert [json.loads(body)["messages"] for body in bodies] == [
        request.json()["messages"] for request in gateway.engine.requests
    ]
    assert gateway.metric("gemma_gateway_body_bytes_in_flight") == 0


async def test_large_body_may_come_in_pieces_of_any_size(start: Start) -> None:
    gateway = await start()
    body = large("x", 100_000)
    request = chat(b"connection: close", body=body)
    cuts = [0, 50, len(request) - len(body), len(request) - len(body) + 1, 40_000, 90_000, len(request) - 1, None]

    answer = await sent(gateway, *(request[start:end] for start, end in pairwise(cuts)))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert gateway.engine.requests[0].json()["messages"] == json.loads(body)["messages"]


async def test_request_right_behind_a_large_body_has_to_be_sent_again(start: Start) -> None:
    gateway = await start()

    answer = await sent(gateway, chat(body=large("x")) + chat())

    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert len(gateway.engine.requests) == 1


async def test_client_that_leaves_in_the_middle_of_a_large_body_leaves_nothing_behind(start: Start) -> None:
    gateway = await start()
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(chat(body=large("x"))[:200_000])
    await gateway.until(lambda: gateway.metric("gemma_gateway_body_bytes_in_flight") > 300_000)

    writer.close()

    await gateway.until(lambda: gateway.metric("gemma_gateway_body_bytes_in_flight") == 0)
    labels = {"path": "/v1/chat/completions", "status": "499"}
    await gateway.until(lambda: gateway.metric("gemma_gateway_requests_total", **labels) == 1)
    assert gateway.engine.requests == []


async def test_request_before_the_answer_to_the_one_before_has_to_be_sent_again(start: Start) -> None:
    gateway = await start()

    answer = await sent(gateway, chat() + chat())

    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert len(gateway.engine.requests) == 1


@pytest.mark.parametrize("size", [10, 100_000])
async def test_wish_for_another_protocol_is_answered_in_this_one(start: Start, size: int) -> None:
    gateway = await start()
    wish = b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAEA"
    body = json.dumps({"model": "gemma", "messages": [{"role": "user", "content": "x" * size}]}).encode()
    request = chat(*wish, body=body)

    answer = await sent(gateway, request[:-5], request[-5:])

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert gateway.engine.requests[0].json()["messages"] == json.loads(body)["messages"]


async def test_client_of_http_1_0_knows_the_end_of_a_stream_by_the_connections(start: Start) -> None:
    gateway = await start()

    answer = await sent(gateway, chat(body=STREAM, version=b"1.0"))

    head, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


async def test_body_is_asked_for_where_the_client_waits_for_that(start: Start) -> None:
    gateway = await start()
    request = chat(b"expect: 100-continue", b"connection: close")

    answer = await sent(gateway, request[: -len(BODY)], BODY)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_body_of_unknown_length_in_pieces_is_put_together(start: Start) -> None:
    gateway = await start()
    text = "x" * 100_000
    body = json.dumps({"model": "gemma", "messages": [{"role": "user", "content": text}]}).encode()
    pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:70_000], body[70_000:])]
    head = (
        b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )

    answer = await sent(gateway, head, *pieces, b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert gateway.engine.requests[0].json()["messages"][0]["content"] == text


async def test_answer_to_head_has_no_body(start: Start) -> None:
    gateway = await start()

    answer = await sent(gateway, b"HEAD /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n")


def test_fields_that_came_several_times_are_joined_in_their_order() -> None:
    pairs = [(b"x-forwarded-for", b"1.2.3.4"), (b"host", b"x"), (b"x-forwarded-for", b"5.6.7.8")]

    assert fields(pairs) == {b"x-forwarded-for": b"1.2.3.4, 5.6.7.8", b"host": b"x"}
