"""The connection to the API of the Kubernetes cluster that the gateway runs in."""

from __future__ import annotations

import socket
import ssl

from httpx2 import AsyncHTTPTransport, RemoteProtocolError, Request, Response, Timeout
from lightkube import AsyncClient, KubeConfig, SingleConfig
from lightkube.config.kubeconfig import SERVICE_ACCOUNT
from lightkube.core.exceptions import ConfigError

from gateway.errors import ConfigurationError

#: Seconds to connect, and for the answer to a list.
_ANSWER_SECONDS = 10.0

#: A server that vanished without a word is noticed within 15 + 3 * 5 s, see tcp(7).
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


def in_cluster(account: str = SERVICE_ACCOUNT) -> SingleConfig:
    """Where the API is, and as whom to ask: by the service account of this Pod, whose token and CA lie in a directory.

    Raises ConfigurationError with the fix where there is none.
    """
    try:
        configuration = KubeConfig.from_service_account(account).get()
        if configuration is None:
            raise ConfigError("it names no cluster")
    except (ConfigError, KeyError, OSError) as fault:
        raise ConfigurationError(
            f"engines by `kubernetes` need the gateway to run in a Pod with a service account ({fault}); give the Pod "
            "`automountServiceAccountToken: true`, or name the replicas by `dns` or `urls`"
        ) from fault
    return configuration


def connect(configuration: SingleConfig) -> AsyncClient:
    """A client for one list and one watch. Reads the token and the CA anew, since both rotate. Close it.

    Raises OSError where the CA cannot be read.
    """
    return AsyncClient(
        configuration,
        timeout=Timeout(_ANSWER_SECONDS),
        # The API of one's own cluster is never behind a proxy.
        trust_env=False,
        transport=_OneWatch(verify=_trust(configuration), trust_env=False, socket_options=_KEEPALIVE),
    )


def _trust(configuration: SingleConfig) -> ssl.SSLContext:
    authority = configuration.cluster.certificate_auth
    return ssl.create_default_context(cafile=configuration.abs_file(authority) if authority else None)


class _OneWatch(AsyncHTTPTransport):
    """Lets one watch through.

    The library watches again as soon as a watch has ended, without a pause and without an end: a server that ends each
    at once would keep the gateway busy with it. So the second is refused, and who watches decides when to go on.
    """

    _watched = False

    async def handle_async_request(self, request: Request) -> Response:
        if "watch" in request.url.params:
            if self._watched:
                raise RemoteProtocolError("the watch has ended")
            self._watched = True
        return await super().handle_async_request(request)
