"""A client on a bare socket, so that it costs little beside what is measured."""

from __future__ import annotations

import socket
from collections.abc import Sequence


def connected(port: int) -> socket.socket:
    """A connection to loopback, which sends at once what it is given."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(connection: socket.socket, data: bytes, headers: str = "") -> int:
    """Sends one chat request and reads its whole answer; the status. `headers` are whole lines."""
    connection.sendall(head(len(data), headers))
    connection.sendall(data)
    return _status(connection)


def exchange_at_once(connections: Sequence[socket.socket], data: bytes, headers: str = "") -> set[int]:
    """Sends the same chat request over each connection, and then reads all answers; their statuses."""
    request = head(len(data), headers) + data
    for connection in connections:
        connection.sendall(request)
    return {_status(connection) for connection in connections}


def head(length: int, headers: str = "") -> bytes:
    """The head of a chat request with a body of `length` bytes. `headers` are whole lines."""
    lines = f"host: localhost\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n"
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode()


def _status(connection: socket.socket) -> int:
    """Reads an answer whole."""
    reader = connection.makefile("rb")
    status = int(reader.readline().split()[1])
    length = 0
    while (line := reader.readline()).strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    reader.read(length)
    return status
