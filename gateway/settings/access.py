"""Who may call, and how much: the sections `auth`, `limits`, `quotas` and `usage`, and what keys may hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from gateway.settings.fields import MIB, Count, Endpoint, Frozen, Modality, Network, Priority, Seconds, is_loopback

JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Limits(Frozen):
    """How much of something may be used. None: as much as there is."""

    requests_per_minute: Count | None = None
    """Requests in any 60 seconds."""
    tokens_per_minute: Count | None = None
    """Tokens of prompts and answers together in any 60 seconds."""
    tokens_per_day: Count | None = None
    """Tokens of prompts and answers together in any 24 hours."""
    max_in_flight: Count | None = None
    """Requests at once."""


class Grant(Frozen):
    """What a caller may do. None: everything."""

    models: tuple[str, ...] | None = None
    """Names under `models`, or patterns of them such as `gemma-*`. `*` alone also allows the catch-all."""
    endpoints: frozenset[Endpoint] | None = None
    """Inference routes, such as `/v1/chat/completions`. /v1/models is always allowed."""
    modalities: frozenset[Modality] | None = None
    """What requests may contain. Text is always allowed."""
    limits: Limits = Limits()
    """How much. What is not set here is taken from `quotas.each_key`."""
    priority: Priority = 0
    """Who comes first where requests wait, here and in the engine: lower numbers before higher ones. A request's own
    field `priority` can only make it wait longer."""


class JwtSettings(Frozen):
    """Tokens of one OpenID Connect provider, sent as `Authorization: Bearer`. They need no keys, and go with them."""

    issuer: str
    """Its URL, as the claim `iss` has it; `/.well-known/openid-configuration` below it tells where its keys are."""
    audience: Annotated[tuple[str, ...], Field(min_length=1)]
    """What the claim `aud` must hold one of."""
    jwks_url: str | None = None
    """Where its keys are. None: what the provider's discovery document says."""
    algorithms: Annotated[tuple[JwtAlgorithm, ...], Field(min_length=1)] = ("RS256",)
    """Signatures that are accepted, whatever a token's header says."""
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    """How far the two clocks may differ."""
    refresh_seconds: Seconds = 300
    """Between two readings of its keys. A token signed by a key not seen yet has them read sooner."""
    timeout_seconds: Seconds = 5
    """For one reading."""
    subject_claim: str = "sub"
    """Claim that tells callers apart. A claim inside another is written `outer.inner`."""
    name_claim: str | None = None
    """Claim to call them by in logs. None: as the subject."""
    grant_claim: str | None = None
    """Claim (text, or a list) whose values choose among `grants`, such as `groups` or `realm_access.roles`. Text with
    blanks in it, such as a `scope`, is a list."""
    grants: Mapping[str, Grant] = {}
    """What tokens may do, by the values of `grant_claim`; the first that a token has counts. `*` is for every other
    token; without it those are refused. Empty: every token may do everything."""
    models_claim: str | None = None
    """Claim (text, or a list) that names models, as `models` in a grant does, and narrows what the grant allows."""

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _secure(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https://none")
        if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            return url
        raise ValueError("must be https://… (http:// on loopback only)")


class AuthSettings(Frozen):
    """Who may call. Without keys and tokens the gateway is open, which is allowed on loopback only."""

    keys_file: Path | None = None
    """YAML file of hashed keys, made by `gemma-gateway keys create`. Changes take effect within two seconds."""
    keys_directory: Path | None = None
    """Folder of such files, `*.yaml` and `*.yml`, such as a mounted Secret. May stand beside `keys_file`."""
    jwt: Mapping[str, JwtSettings] = {}
    """Providers of tokens, by names for logs and metrics."""
    max_failures_per_minute: Annotated[int, Field(ge=0)] = 30
    """Wrong keys or tokens from one address, before more are answered late and with 429. Good ones are not affected.
    0: no such limit."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of proxies whose X-Forwarded-For tells the address that a request came from."""
    isolate_caches: bool = True
    """Whether each key has the engine's prefix and media caches to itself. Off: equal prompts of two keys share them,
    which saves work and lets one measure whether another has sent the same."""


class LimitSettings(Frozen):
    """How much one gateway takes on at once."""

    max_in_flight: Count = 1024
    """Inference requests at once; more wait."""
    max_queued: Annotated[int, Field(ge=0)] = 256
    """Requests that wait for one of those places, the callers in turn; more get 503 with Retry-After."""
    queue_seconds: Seconds = 10
    """The longest such wait; then 503 with Retry-After."""
    max_body_bytes_in_flight: Count = 1024 * MIB
    """Request bodies held at once; a request that would exceed it gets 503 with Retry-After before its body is read."""
    max_pieces_at_once: Count = 4
    """Pieces of one recording, for transcriptions and translations, that the engine is asked about at once."""
    retry_after_seconds: Seconds = 2
    """What Retry-After says, at least, when the gateway or its engine is full or down."""


class OnFailure(StrEnum):
    """What becomes of requests while the shared store cannot be reached."""

    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"


class StoreSettings(Frozen):
    """A Valkey or Redis server in which several gateways count together."""

    url: str | None = None
    """`redis://host:6379/0`, `rediss://…` with TLS, or `unix:///path`. None: each gateway counts for itself."""
    password_file: Path | None = None
    """File with the password, such as a mounted Secret: better than one in the URL."""
    prefix: str = "gemma"
    """What its keys begin with."""
    timeout_seconds: Seconds = 0.25
    """For one call, connecting included."""
    on_failure: OnFailure = OnFailure.LOCAL
    """While it cannot be reached: `local`: each gateway counts alone; `open`: nothing is limited; `closed`: 503."""


class QuotaSettings(Frozen):
    """How much may be used, beside what keys and models say themselves. What is refused gets 429 with Retry-After."""

    total: Limits = Limits()
    """By all callers together."""
    each_key: Limits = Limits()
    """By each caller, where its key or token does not say."""
    estimated_completion_tokens: Count = 256
    """Charged in advance for an answer whose request does not say how long it may get, until its true usage is known.
    """
    store: StoreSettings = StoreSettings()
    """Where gateways count together."""


class UsageSettings(Frozen):
    """Who used what: a file of JSON lines, one for each inference request, and metrics by key."""

    file: Path | None = None
    """The file. None: none is written."""
    max_bytes: Count = 256 * MIB
    """Size at which it is set aside as `<name>.1`, and that as `<name>.2`, and so on."""
    max_files: Count = 8
    """Files kept, the one being written included."""
    max_keys_in_metrics: Annotated[int, Field(ge=0)] = 500
    """Keys that metrics tell apart; those that come later are counted as `other`."""
