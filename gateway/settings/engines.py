"""The engines behind the gateway: where their replicas are, how one is chosen, and how long each step may take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.settings.fields import Count, Frozen, Seconds

NotNegative = Annotated[float, Field(ge=0)]


def _reachable(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return url
    if parts.scheme == "http" and parts.hostname and parts.path in ("", "/") and not parts.query:
        return url.rstrip("/")
    raise ValueError("must be http://host:port or unix:/path/to/socket")


EngineUrl = Annotated[str, AfterValidator(_reachable)]


class Records(StrEnum):
    """Which DNS records name the replicas."""

    ADDRESS = "address"
    SRV = "srv"


class DnsSettings(Frozen):
    """Replicas by DNS, such as those of a headless Service in Kubernetes."""

    name: str
    """What is asked for: `gemma-engine.models.svc.cluster.local`, or with `srv` `_http._tcp.` before that."""
    records: Records = Records.ADDRESS
    """`address` asks for A and AAAA, and takes `port`; `srv` asks for SRV, which tells the ports."""
    port: Annotated[int, Field(gt=0, le=65535)] = 8000
    """Where every replica listens; SRV records say that themselves."""
    max_refresh_seconds: Seconds = 10
    """The name is asked for again when the answer's TTL is over (at least 1 s), and at the latest after this time."""


class KubernetesSettings(Frozen):
    """Replicas by the EndpointSlices of a Service: the gateway's service account must be allowed to watch them."""

    service: str
    """Name of the Service."""
    namespace: str | None = None
    """Where it is. None: the gateway's own."""
    port: str | int = "http"
    """Name of the Service's port, or the number at which the Pods listen (`targetPort`)."""


class Policy(StrEnum):
    """How a replica is chosen."""

    AFFINITY = "affinity"
    LEAST_REQUESTS = "least_requests"
    SESSION = "session"
    ROUND_ROBIN = "round_robin"


class RoutingSettings(Frozen):
    """How a replica is chosen for a request."""

    policy: Policy = Policy.AFFINITY
    """`affinity`: requests that begin alike (system prompt, first turn, media) go where that is in the caches, unless
    it is too loaded. `least_requests`: to the least loaded. `session`: by the header `x-session-id`, else by affinity.
    `round_robin`: to each in turn."""
    load_bound: Annotated[float, Field(ge=1)] = 1.25
    """`affinity` and `session`: a replica with more than this times the mean load is passed over."""
    gauges_seconds: NotNegative = 1
    """Between two readings of a replica's own figures (requests running and waiting, KV cache), which count what other
    gateways send it. 0: never."""
    explain: bool = False
    """Whether replies say by the header `x-gemma-routing` which replica was chosen, and why."""


class EjectionSettings(Frozen):
    """When a replica that fails is left out for a while."""

    failures: Count = 3
    """Failures in a row (connection, silence, a broken reply, a 5xx that is not about load)."""
    seconds: Seconds = 5
    """For how long; doubled with each failed trial after that."""
    max_seconds: Seconds = 60
    """And never for longer than this."""


class RetrySettings(Frozen):
    """When another replica gets a request that failed before the first byte of its answer."""

    attempts: Annotated[int, Field(ge=0)] = 2
    """How many further replicas are tried for one request. 0: none."""
    budget: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Retries at most, as a share of the requests, so that a failing pool is not flooded; the first ten are free."""


class HoldSettings(Frozen):
    """Requests wait while no replica is ready, such as while the first one starts."""

    seconds: NotNegative = 10
    """For how long; then 503. 0: they are refused at once."""
    max_requests: Annotated[int, Field(ge=0)] = 256
    """How many may wait; more are refused at once."""


class EngineSettings(Frozen):
    """One engine: replicas that serve the same. Exactly one of `url`, `urls`, `dns` and `kubernetes` says where."""

    url: EngineUrl | None = None
    """The only replica: `http://host:port`, or `unix:/path/to/socket`."""
    urls: tuple[EngineUrl, ...] = ()
    """Several replicas."""
    dns: DnsSettings | None = None
    """Replicas that come and go, by DNS."""
    kubernetes: KubernetesSettings | None = None
    """Replicas that come and go, by Kubernetes' EndpointSlices."""
    routing: RoutingSettings = RoutingSettings()
    """How a replica is chosen for a request."""
    ejection: EjectionSettings = EjectionSettings()
    """When a replica that fails is left out for a while."""
    retries: RetrySettings = RetrySettings()
    """When another replica gets what failed."""
    hold: HoldSettings = HoldSettings()
    """Whether requests wait while no replica is ready."""
    connect_seconds: Seconds = 5
    """To open a connection."""
    first_byte_seconds: Seconds = 600
    """From the request sent to the reply's first byte: queueing and, when not streaming, the whole generation."""
    idle_seconds: Seconds = 120
    """The longest silence within a reply."""
    total_seconds: Seconds | None = None
    """From the request sent to the reply's end. None: no limit beside the others."""
    max_idle_connections: Annotated[int, Field(ge=0)] = 256
    """Connections to each replica that are kept open for reuse; the latest is used first."""
    probe_seconds: Seconds = 2
    """Between two looks at a replica's /health."""

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> EngineSettings:
        ways = [name for name in ("url", "urls", "dns", "kubernetes") if getattr(self, name)]
        if len(ways) != 1:
            told = " and ".join(ways) if ways else "none of them"
            raise ValueError(f"needs exactly one of url, urls, dns and kubernetes, not {told}")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("urls names a replica twice; remove one")
        return self
