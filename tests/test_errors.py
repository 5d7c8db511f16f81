"""Errors have the shape that clients of OpenAI's and Anthropic's APIs expect."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.errors import GatewayError


def every(kind: type[GatewayError]) -> list[type[GatewayError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in every(child))]


@pytest.mark.parametrize("kind", every(GatewayError))
def test_every_error_has_both_shapes_and_an_error_status(kind: type[GatewayError]) -> None:
    error = kind("Too long.", param="a.b")

    openai, anthropic = json.loads(error.body()), json.loads(error.anthropic_body())
    assert openai == {"error": {"message": "Too long.", "type": kind.type, "param": "a.b", "code": kind.code}}
    assert anthropic["type"] == "error"
    assert anthropic["error"]["message"] == "Too long."
    assert 400 <= kind.status < 600


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    assert errors.OverloadedError("", retry_after=0.2).headers() == [(b"retry-after", b"1")]
    assert errors.OverloadedError("").headers() == []


def test_401_asks_for_a_bearer_key() -> None:
    assert (b"www-authenticate", b"Bearer") in errors.AuthenticationError("No key.").headers()
