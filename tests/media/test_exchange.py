"""An answer reads the same however its bytes come, and no bytes do more than break it off."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import MediaUnreachableError
from gateway.media.exchange import Answer, request

HEAD = b"HTTP/1.1 200 OK\r\n"

#: Bytes made of what answers are made of, and of what should not be in them.
BYTES = st.lists(
    st.sampled_from(
        [
            HEAD,
            b"HTTP/1.1 100 Continue\r\n",
            b"HTTP/1.1 304 Not Modified\r\n",
            b"content-length: 3\r\n",
            b"transfer-encoding: chunked\r\n",
            b"connection: close\r\n",
            b"upgrade: x\r\n",
            b"\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n",
            b"abc",
        ]
    )
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


def read(pieces: list[bytes]) -> tuple[int, dict[str, str], bytes] | None:
    """Status, fields and body of the answer that comes in these pieces; None where it is broken off."""

    async def answer() -> tuple[int, dict[str, str], bytes]:
        reader = asyncio.StreamReader()
        one = Answer(reader)
        feeding = asyncio.create_task(feed(reader))
        try:
            await one.head()
            body = b""
            while chunk := await one.read():
                body += chunk
            return one.status, dict(one.headers), body
        finally:
            await feeding

    async def feed(reader: asyncio.StreamReader) -> None:
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()

    with asyncio.Runner() as runner:
        try:
            return runner.run(answer())
        except MediaUnreachableError:
            return None


@given(BYTES, st.integers(0, 99))
@example(HEAD + b"content-length: 3\r\n\r\nabc", 30)
@example(HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 50)
@example(HEAD + b"\r\nabc", 20)
def test_an_answer_reads_the_same_in_pieces(data: bytes, cut: int) -> None:
    assert read([data[:cut], data[cut:]]) == read([data])


def test_repeated_fields_are_joined_and_trailers_left_out() -> None:
    fields = b"Vary: a\r\nTransfer-Encoding: chunked\r\nvary: b\r\n\r\n"
    outcome = read([HEAD + fields + b"1\r\nx\r\n0\r\nvary: *\r\n\r\n"])
    assert outcome == (200, {"vary": "a, b", "transfer-encoding": "chunked"}, b"x")


def test_a_body_may_have_as_much_framing_as_it_has_bytes_once_it_is_large() -> None:
    large = HEAD + b"transfer-encoding: chunked\r\n\r\n" + (b"10\r\n" + b"x" * 16 + b"\r\n") * 10_000 + b"0\r\n\r\n"
    outcome = read([large])
    assert outcome is not None
    assert len(outcome[2]) == 160_000


@pytest.mark.parametrize("conditions", [{}, {"If-None-Match": '"a"', "If-Modified-Since": "yesterday"}])
def test_a_request_is_a_get_with_its_conditions(conditions: dict[str, str]) -> None:
    head, *lines = request("a.example:81", "/b?c", conditions).decode().split("\r\n")
    assert head == "GET /b?c HTTP/1.1"
    assert lines[0] == "Host: a.example:81"
    assert [line for line in lines if line.startswith("If-")] == [f"{k}: {v}" for k, v in conditions.items()]
    assert lines[-2:] == ["", ""]
