"""Where spans go, and of which requests: the section `tracing`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from gateway.settings.fields import Frozen, Seconds

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Printable ASCII without blanks at the ends: anything else the exporter would refuse, and show in its error.
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


class TracingSettings(Frozen):
    """OpenTelemetry spans of inference requests, sent by OTLP over HTTP. Needs the extra `tracing`."""

    endpoint: str | None = None
    """Where they are sent, such as `http://collector:4318`; `/v1/traces` is added where it does not end so. None: no
    spans are made, and what clients send as `traceparent` and `tracestate` is passed on."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests that are traced, among those whose client says nothing about it by `traceparent`."""
    headers: Annotated[Mapping[str, str], Field(repr=False)] = {}
    """Sent along, such as `{authorization: Bearer …}`; never logged."""
    service_name: Annotated[str, Field(min_length=1)] = "gemma-gateway"
    """What the gateway is called in traces."""
    timeout_seconds: Seconds = 10
    """For sending one batch, retries included. What could not be sent by then is lost."""

    @field_validator("endpoint")
    @classmethod
    def _complete(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        beyond = parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in ("http", "https") or not parts.hostname or beyond:
            raise ValueError("must be http://host:port or https://host:port; credentials belong into tracing.headers")
        return url.rstrip("/").removesuffix("/v1/traces") + "/v1/traces"

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header; write such as authorization")
            if not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"the value of {name} must be printable ASCII without blanks or line ends around it")
        return headers
