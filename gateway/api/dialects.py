"""The inference routes that clients may reach, and how each one's API shapes an error."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from gateway.errors import GatewayError


class Dialect(StrEnum):
    """Whose API a route speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


#: The allow-list. Every other route of vLLM's application is a 404; tests/engine/test_routes.py classifies them all.
INFERENCE_PATHS: Mapping[str, Dialect] = MappingProxyType(
    {
        "/v1/chat/completions": Dialect.OPENAI,
        "/v1/completions": Dialect.OPENAI,
        "/v1/embeddings": Dialect.OPENAI,
        "/tokenize": Dialect.OPENAI,
        "/detokenize": Dialect.OPENAI,
        "/v1/responses": Dialect.RESPONSES,
        "/v1/messages": Dialect.ANTHROPIC,
        "/v1/messages/count_tokens": Dialect.ANTHROPIC,
    }
)

#: Routes whose stream tells the usage only where `stream_options.include_usage` asks for it.
USAGE_ON_REQUEST = frozenset({"/v1/chat/completions", "/v1/completions"})


def error_body(dialect: Dialect, error: GatewayError) -> bytes:
    """The JSON body of an error reply."""
    return error.anthropic_body() if dialect is Dialect.ANTHROPIC else error.body()


def body_event(dialect: Dialect, body: bytes) -> bytes:
    """The event for an error whose body is known, on a stream that has begun."""
    return (b"data: %b\n\n" if dialect is Dialect.OPENAI else b"event: error\ndata: %b\n\n") % body


def error_event(dialect: Dialect, error: GatewayError) -> bytes:
    """The event that tells a client that its stream has failed; nothing follows it."""
    if dialect is Dialect.OPENAI:
        return b"data: " + error.body() + b"\n\n"
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + error.anthropic_body() + b"\n\n"
    event = {"type": "error", "sequence_number": 0, **error.detail()} | {"type": "error"}
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
