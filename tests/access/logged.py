"""Which request's lines a logger writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.logs import request_id


class _Ids(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str | None] = []

    def emit(self, _: logging.LogRecord) -> None:
        self.found.append(request_id.get())


@contextmanager
def within_request(logger: str) -> Iterator[list[str | None]]:
    """Runs the block as a request does; gives the request ids of that logger's lines meanwhile."""
    ids = _Ids()
    token = request_id.set("req-1")
    logging.getLogger(logger).addHandler(ids)
    try:
        yield ids.found
    finally:
        logging.getLogger(logger).removeHandler(ids)
        request_id.reset(token)
