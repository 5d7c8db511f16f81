"""The chunked transfer coding (RFC 9112, 7.1), for chunks as short as a token's.

Making a size line, or reading one, takes longer than to look it up.
"""

from __future__ import annotations

CRLF = b"\r\n"

#: The lines that say how long a chunk is, by its length in bytes.
SIZE_LINES = tuple(b"%x\r\n" % size for size in range(4096))

_NONE = b"\0"


def _by_total() -> tuple[bytes, ...]:
    totals = {len(line) + size + len(CRLF): line for size, line in enumerate(SIZE_LINES) if size}
    return tuple(totals.get(total, _NONE) for total in range(max(totals) + 1))


#: The size lines of chunks that are not empty, by the length in bytes of the chunk with all that is around it: there is
#: one at most. Where there is none, something that no chunk begins with.
SIZE_LINES_BY_TOTAL = _by_total()


def framed(data: bytes) -> bytes:
    """One chunk with all that is around it; `data` is not empty."""
    size = len(data)
    return b"".join((SIZE_LINES[size] if size < len(SIZE_LINES) else b"%x\r\n" % size, data, CRLF))
