"""Where the gateway listens, and its log: the sections `server` and `logs`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.settings.fields import MIB, Count, Frozen, Port, Seconds


class ServerSettings(Frozen):
    """Where the gateway listens, and how it stops."""

    host: str = "127.0.0.1"
    """Address of the inference API. Anything but loopback needs keys."""
    port: Port = 8000
    """Port of the inference API."""
    reuse_port: bool = False
    """Whether more gateways on this machine may listen on the same address, each with an `admin_port` of its own: the
    system deals out connections among them. Limits are counted by each, unless `quotas.store` is set."""
    admin_host: str = "127.0.0.1"
    """Address of /metrics, /livez and /readyz. Never expose it to clients."""
    admin_port: Port = 9090
    """Port of /metrics, /livez and /readyz."""
    drain_seconds: Annotated[float, Field(ge=0)] = 30
    """From SIGTERM to the end: what is still running then is cut off."""
    drain_delay_seconds: Annotated[float, Field(ge=0)] = 0
    """How much of that load balancers get to notice, by /readyz, that new connections should go elsewhere."""
    stream_comment_seconds: Seconds | None = None
    """A stream on which nothing was sent for so long gets an SSE comment: proxies take a long prefill for a dead
    connection. None: no comments."""
    usage_speed: bool = False
    """The usage of answers tells how fast they came, as the gateway saw it: see guides/gemma-3n.md."""
    max_body_bytes: Count = 64 * MIB
    """Largest request body; more is a 413."""
    access_log: bool = True
    """One line for each request."""

    @model_validator(mode="after")
    def _time_left_to_drain(self) -> ServerSettings:
        if self.drain_delay_seconds and self.drain_delay_seconds >= self.drain_seconds:
            raise ValueError("drain_delay_seconds must be less than drain_seconds, of which it is a part")
        return self


class LogSettings(Frozen):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["text", "json"] = "text"
    """Text for people, one JSON object a line for machines."""
