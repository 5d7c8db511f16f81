"""Requests: decoded at the top level only, re-encoded only when changed."""

from __future__ import annotations

import json

import pytest

from gateway.errors import InvalidRequestError
from gateway.protocol import parse


def test_unchanged_request_encodes_to_the_very_same_object() -> None:
    body = b' {"model" : "a", "x": 1e2} '

    assert parse("/v1/completions", body).encode() is body


def test_changed_field_leaves_the_others_bytes_alone() -> None:
    request = parse("/", b'{"model":"a","big":{"n":1.0,"u":"\\u00e9"},"drop":1}')

    encoded = request.with_fields({"model": "b", "new": [1]}, without=("drop",)).encode()

    assert encoded == b'{"model":"b","big":{"n":1.0,"u":"\\u00e9"},"new":[1]}'


def test_change_does_not_touch_the_request_it_came_from() -> None:
    request = parse("/", b'{"model":"a"}')

    request.with_fields({"model": "b"})

    assert request.get("model", str) == "a"


def test_absent_and_null_fields_are_none() -> None:
    request = parse("/", b'{"a":null}')

    assert request.get("a", str) is None
    assert request.get("b", str) is None


def test_field_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse("/", b'{"stream":"yes"}').get("stream", bool)

    assert refusal.value.param == "stream"
    assert "'stream' is invalid" in refusal.value.message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b"null", b"{1:2}", b"\xff\xfe", b'{"a":1}x', b'{"a":tru}']
)
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse("/", body)


def test_deep_nesting_is_no_danger() -> None:
    depth = 50_000
    body = b'{"model":"a","messages":' + b"[" * depth + b"]" * depth + b"}"

    try:
        request = parse("/", body)
    except InvalidRequestError:
        return
    assert request.encode() is body


def test_escaped_unicode_and_numbers_survive_a_change() -> None:
    body = json.dumps({"model": "a", "text": "é😀\u2028", "n": 12345678901234567890, "f": 0.1}).encode()

    assert json.loads(parse("/", body).with_fields({"model": "b"}).encode()) == {**json.loads(body), "model": "b"}
