"""Forms are read out of memory, within bounds, and what is wrong with one is told by the field's name."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import form
from gateway.errors import InvalidRequestError

TYPE = b"multipart/form-data; boundary=B"


def part(name: str, content: bytes, extra: str = "") -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join([*parts, b"--B--\r\n"])


FILE = part("file", b"sound", '; filename="a.wav"')


@given(content=st.binary(max_size=2000), prompt=st.text(min_size=1, max_size=200))
def test_form_of_a_real_client_comes_out_as_it_went_in(content: bytes, prompt: str) -> None:
    request = httpx.Request(
        "POST", "http://x", data={"prompt": prompt, "include[]": ["a", "b"]}, files={"file": ("clip.wav", content)}
    )

    read = form.read(request.headers["content-type"].encode(), request.read())

    assert read.file == content
    assert read.fields == {"prompt": (prompt,), "include": ("a", "b")}


def test_content_that_looks_like_a_boundary_stays_content() -> None:
    content = b"\r\n--\r\n--A\r\n-- B--\r\n\r\n--"

    assert form.read(TYPE, body(part("file", content))).file == content


def test_empty_field_is_as_good_as_none() -> None:
    assert form.read(TYPE, body(FILE, part("language", b""))).fields == {}


def test_quoted_boundary_and_header_in_any_case_are_understood() -> None:
    sent = body(FILE).replace(b"Content-Disposition", b"content-DISPOSITION")

    assert form.read(b'Multipart/Form-Data; charset=utf-8; boundary="B"', sent).file == b"sound"


BROKEN = {
    "no content type": (None, body(FILE), None, "multipart/form-data"),
    "JSON": (b"application/json", b"{}", None, "not as application/json"),
    "no boundary": (b"multipart/form-data", body(FILE), None, "no boundary"),
    "another boundary": (b"multipart/form-data; boundary=C", body(FILE), None, "broken"),
    "endless boundary": (b"multipart/form-data; boundary=" + b"B" * 300, body(FILE), None, "broken"),
    "empty": (TYPE, b"", None, "ends before"),
    "cut off": (TYPE, body(FILE)[:-6], None, "ends before"),
    "no file": (TYPE, body(part("model", b"gemma")), "file", "missing"),
    "two files": (TYPE, body(FILE, FILE), "file", "more than once"),
    "part without a name": (TYPE, body(FILE, b"--B\r\nX-Y: z\r\n\r\n1\r\n"), None, "no name"),
    "too many parts": (TYPE, body(FILE, *[part("x", b"1")] * form.MAX_PARTS), None, "64 parts"),
    "too many headers": (TYPE, body(b"--B\r\n" + b"A: b\r\n" * 50 + b"\r\n1\r\n"), None, "broken"),
    "header too long": (TYPE, body(part("x" * 10_000, b"1")), None, "broken"),
    "field too long": (TYPE, body(FILE, part("prompt", b"x" * (form.MAX_FIELD_BYTES + 1))), "prompt", "longer than"),
    "field not UTF-8": (TYPE, body(FILE, part("prompt", b"\xff")), "prompt", "UTF-8"),
}


@pytest.mark.parametrize(("content_type", "sent", "param", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_form_that_cannot_be_taken_is_refused_with_the_reason(
    content_type: bytes | None, sent: bytes, param: str | None, says: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        form.read(content_type, sent)

    assert caught.value.param == param
    assert says in caught.value.message


@given(sent=st.binary(max_size=300), cut=st.integers(0, 200))
def test_no_bytes_do_worse_than_be_refused(sent: bytes, cut: int) -> None:
    for tried in (b"--B\r\n" + sent, body(FILE, part("prompt", sent))[:cut]):
        try:
            assert form.read(TYPE, tried).file is not None
        except InvalidRequestError as refusal:
            assert refusal.message
