"""The sockets that the gateway listens on, and uvicorn's servers for them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial

import uvicorn

from gateway.app.inbound import Inbound, Public
from gateway.errors import ConfigurationError

#: Load balancers keep connections open for 60 s or more; closing before they do loses requests.
KEEP_ALIVE_SECONDS = 75


class Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers: two run in one process."""

    def stop(self) -> None:
        """Takes no more connections, and lets what is running finish."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: object, drain_seconds: float, public: Public | None = None) -> Server:
    """A server for an ASGI application that lets running requests finish for that long. What `public` answers goes
    there instead.
    """
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=partial(Inbound, public=public),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace(drain_seconds),
    )
    return Server(config)


def grace(drain_seconds: float) -> int:
    """The time in whole seconds, of which uvicorn takes 0 for none at all."""
    return max(1, round(drain_seconds))


def bind(host: str, port: int, what: str, *, shared: bool = False) -> socket.socket:
    """A listening socket; `shared` with other processes that want that as well.

    Raises ConfigurationError with the fix where the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as fault:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {fault.strerror}; choose another with --{what}"
        ) from fault
    return listener


def address(listener: socket.socket) -> str:
    """Its URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
