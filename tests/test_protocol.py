"""Requests: decoded at the top level only, re-encoded only when changed."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError
from gateway.protocol import CARVED, InferenceRequest, mark, parse

BASE64 = base64.b64encode(bytes(range(256)) * 400).decode()


def encoded(request: InferenceRequest) -> bytes:
    return b"".join(request.encode())


def test_unchanged_request_encodes_to_the_very_same_object() -> None:
    body = b' {"model" : "a", "x": 1e2} '

    assert parse("/v1/completions", body).encode() == (body,)


def test_changed_field_leaves_the_others_bytes_alone() -> None:
    request = parse("/", b'{"model":"a","big":{"n":1.0,"u":"\\u00e9"},"drop":1}')

    changed = request.with_fields({"model": "b", "new": [1]}, without=("drop",))

    assert encoded(changed) == b'{"model":"b","big":{"n":1.0,"u":"\\u00e9"},"new":[1]}'


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
    assert encoded(request) == body


def test_escaped_unicode_and_numbers_survive_a_change() -> None:
    body = json.dumps({"model": "a", "text": "é😀\u2028", "n": 12345678901234567890, "f": 0.1}).encode()

    assert json.loads(encoded(parse("/", body).with_fields({"model": "b"}))) == {**json.loads(body), "model": "b"}


def test_long_base64_is_carved_out_and_put_back_when_another_field_changes() -> None:
    body = json.dumps({"model": "a", "parts": [f"data:image/png;base64,{BASE64}", BASE64, "short"]}).encode()

    request = parse("/", body)

    assert [bytes(payload) for payload in request.payloads] == [BASE64.encode()] * 2
    assert request.get("parts", list) == [f"data:image/png;base64,{mark(0)}", mark(1), "short"]
    assert json.loads(encoded(request.with_fields({"model": "b"}))) == {**json.loads(body), "model": "b"}


def test_payload_is_what_was_carved_out_or_the_text_itself() -> None:
    request = parse("/", json.dumps({"long": BASE64, "short": "YWJj"}).encode())

    assert request.payload(request.get("long", str) or "") == BASE64.encode()
    assert request.payload(request.get("short", str) or "") == b"YWJj"


def test_payloads_can_join_a_request() -> None:
    request = parse("/", json.dumps({"a": BASE64}).encode())

    joined = request.with_fields({"b": f"<{mark(1)}>"}, payloads=(b"new",))

    assert json.loads(encoded(joined)) == {"a": BASE64, "b": "<new>"}


@pytest.mark.parametrize(
    "long",
    [
        "word " * CARVED,
        BASE64[: CARVED - 10],
        "=" * 2 * CARVED,
        "\u00e9" * CARVED,
        BASE64.replace("/", "\\/"),
        BASE64 + '"' + BASE64[:40],
        list(range(CARVED)),
        {BASE64: 1},
    ],
    ids=["words", "just too short", "no base64", "letters", "escaped slashes", "a quote inside", "numbers", "a key"],
)
def test_every_body_comes_out_as_it_went_in(long: object) -> None:
    body = json.dumps({"model": "a", "long": long, "then": [1, "x"]}, separators=(",", ":")).encode()

    assert encoded(parse("/", body).with_fields({"model": "a"})) == body


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_body_that_breaks_off_behind_a_long_payload_is_refused(cut: int) -> None:
    body = json.dumps({"a": BASE64}).encode()

    with pytest.raises(InvalidRequestError):
        parse("/", body[:-cut])


@given(st.lists(st.text() | st.integers() | st.just(BASE64) | st.just(f'"{BASE64}\\'), max_size=6), st.booleans())
def test_any_mixture_of_texts_survives_carving(parts: list[object], ascii_only: bool) -> None:
    body = json.dumps({"model": "a", "parts": parts}, ensure_ascii=ascii_only).encode()

    assert json.loads(encoded(parse("/", body).with_fields({"model": "b"})))["parts"] == parts
