"""A reply's body comes out as it was sent, however the network cuts it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import chunked
from gateway.settings import EngineSettings
from gateway.upstream.connection import Connection

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


class Sink(asyncio.Transport):
    """The engine's side: what is sent goes nowhere."""

    def writelines(self, list_of_data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def relayed(first: bytes, rest: Sequence[bytes]) -> bytes:
    """What comes of a reply whose pieces arrive one after the other, the first before anybody listens."""
    connection = Connection(EngineSettings.model_validate({"url": "http://engine:1"}))
    connection.connection_made(Sink())
    exchange = asyncio.create_task(connection.exchange(b"", ()))
    await asyncio.sleep(0)
    connection.data_received(first)
    await exchange
    found: list[bytes] = []
    listening = asyncio.create_task(connection.relay(found.append))
    await asyncio.sleep(0)
    for piece in rest:
        connection.data_received(piece)
    await asyncio.wait_for(listening, 1)
    assert connection.reusable
    connection.connection_lost(None)
    return b"".join(found)


#: Events of the usual kind, and what looks like the coding itself.
contents = st.one_of(
    st.sampled_from([b"data: {}\n\n", b"\n\n", b"\r\n", b"\n\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"a", b"x" * 5000]),
    st.binary(min_size=1, max_size=40).map(lambda data: b"data: " + data + b"\n\n"),
)


@given(st.lists(contents, min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_chunks_come_out_as_they_went_in_however_they_are_cut(chunks: list[bytes], data: st.DataObject) -> None:
    parts = [HEAD + b"transfer-encoding: chunked\r\n\r\n", *map(chunked.framed, chunks), b"0\r\n\r\n"]
    stream, head = b"".join(parts), len(parts[0])
    ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
    cuts = data.draw(st.sets(st.one_of(st.sampled_from(ends), st.integers(head, len(stream)))))
    at = sorted({head, *cuts, len(stream)})
    pieces = [stream[start:end] for start, end in pairwise(at)]

    assert asyncio.run(relayed(stream[:head], pieces)) == b"".join(chunks)


@given(st.lists(contents, min_size=1, max_size=12))
@settings(deadline=None)
def test_body_of_known_length_is_never_taken_for_chunks(pieces: list[bytes]) -> None:
    pieces = [b"data: {}\n\n\r\n", *pieces, *map(chunked.framed, pieces)]
    head = HEAD + b"content-length: %d\r\n\r\n" % sum(map(len, pieces))

    assert asyncio.run(relayed(head, pieces)) == b"".join(pieces)


@pytest.mark.parametrize("line", [b"0005", b"5;name=value", b"5"])
async def test_size_lines_of_any_form_are_understood(line: bytes) -> None:
    event = b"a: \n\n"
    chunk = b"%b\r\n%b\r\n" % (line, event)

    assert await relayed(HEAD + b"transfer-encoding: chunked\r\n\r\n", [chunk] * 5 + [b"0\r\n\r\n"]) == event * 5


async def test_who_listens_no_more_is_told_nothing_more() -> None:
    connection = Connection(EngineSettings.model_validate({"url": "http://engine:1"}))
    connection.connection_made(Sink())
    exchange = asyncio.create_task(connection.exchange(b"", ()))
    await asyncio.sleep(0)
    connection.data_received(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    await exchange
    heard = []

    def refuse(data: bytes) -> None:
        heard.append(data)
        raise ValueError

    listening = asyncio.create_task(connection.relay(refuse))
    await asyncio.sleep(0)
    for _ in range(3):
        connection.data_received(chunked.framed(b"data: {}\n\n"))

    with pytest.raises(ValueError):
        await listening
    assert heard == [b"data: {}\n\n"]
    assert not connection.reusable
    connection.connection_lost(None)


def test_size_lines_are_found_by_the_length_of_the_whole_chunk() -> None:
    for size in (1, 9, 15, 16, 255, 256, 4095):
        chunk = chunked.framed(b"x" * size)
        assert chunk == b"%x\r\n%b\r\n" % (size, b"x" * size)
        assert chunked.SIZE_LINES_BY_TOTAL[len(chunk)] == b"%x\r\n" % size
    assert chunked.framed(b"x" * 4096) == b"1000\r\n" + b"x" * 4096 + b"\r\n"
    # The end of the body is no chunk.
    assert not b"0\r\n\r\n".startswith(chunked.SIZE_LINES_BY_TOTAL[5])
