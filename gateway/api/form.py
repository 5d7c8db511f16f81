"""Reads a multipart/form-data body out of memory: its fields and its file; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from gateway.errors import InvalidRequestError
from gateway.protocol import Body

#: More parts than any client sends; OpenAI's API knows about a dozen fields.
MAX_PARTS = 64

#: Bytes of one field that is not the file. A prompt longer than this is a mistake.
MAX_FIELD_BYTES = 64 * 1024

#: The name of the part that is the file.
FILE = "file"


@dataclass(frozen=True, slots=True)
class Form:
    """Each field's values in the order they came, `name[]` under `name`, less those that are empty; and the file."""

    fields: Mapping[str, tuple[str, ...]]
    file: bytes


@dataclass(slots=True)
class _Part:
    """Filled in as the parser goes on. `spans` are the places in the body that the content stands in."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def name(self) -> str:
        """Raises InvalidRequestError where the part has none."""
        disposition = next((value for key, value in self.headers if key == b"content-disposition"), b"")
        _, options = parse_options_header(disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise InvalidRequestError("A part of the multipart body has no name.")
        return name.removesuffix("[]")

    def content(self, body: memoryview) -> bytes:
        return b"".join(body[start:end] for start, end in self.spans)


def read(content_type: bytes | None, body: Body) -> Form:
    """The form that a request carries.

    Raises InvalidRequestError naming the field where the body is no form, broken, has no file or more than one, too
    many fields, or one that is too long or not UTF-8.
    """
    parts = _parse(_boundary(content_type), body)
    view = memoryview(body)
    files = [part for name, part in parts if name == FILE]
    if len(files) != 1:
        problem = "is missing: send the audio in it" if not files else "was sent more than once"
        raise InvalidRequestError(f"The form field '{FILE}' {problem}.", param=FILE)
    fields: dict[str, tuple[str, ...]] = {}
    for name, part in parts:
        if name != FILE and (value := _text(name, part, view)):
            fields[name] = (*fields.get(name, ()), value)
    return Form(fields, files[0].content(view))


def _boundary(content_type: bytes | None) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        shown = kind.decode("latin-1")[:100] or "a body without Content-Type"
        raise InvalidRequestError(
            f"Send the audio as multipart/form-data with the fields 'file' and 'model', not as {shown}."
        )
    if b"boundary" not in options:
        raise InvalidRequestError("The Content-Type multipart/form-data names no boundary.")
    return options[b"boundary"]


def _parse(boundary: bytes, body: Body) -> list[tuple[str, _Part]]:
    collector = _Collector()
    try:
        # The parser bounds the number and the size of each part's headers.
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)  # type: ignore[arg-type]
    except FormParserError as fault:
        raise InvalidRequestError(f"The multipart body is broken: {fault}.") from fault
    if not collector.complete:
        raise InvalidRequestError("The multipart body ends before its last boundary.")
    return [(part.name(), part) for part in collector.parts]


def _text(name: str, part: _Part, body: memoryview) -> str:
    shown = name[:64]
    if sum(end - start for start, end in part.spans) > MAX_FIELD_BYTES:
        raise InvalidRequestError(f"'{shown}' is longer than {MAX_FIELD_BYTES} bytes.", param=shown)
    try:
        return part.content(body).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"'{shown}' is not UTF-8.", param=shown) from None


class _Collector:
    """Takes down what the parser finds, as places in the body."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._key = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_key,
            "on_header_value": self._on_value,
            "on_part_data": self._on_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise InvalidRequestError(f"The multipart body has more than {MAX_PARTS} parts.")
        self.parts.append(_Part())

    def _on_key(self, data: bytes, start: int, end: int) -> None:
        self._key = bytes(data[start:end]).lower()

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].headers.append((self._key, bytes(data[start:end])))

    def _on_data(self, _: bytes, start: int, end: int) -> None:
        self.parts[-1].spans.append((start, end))

    def _end(self) -> None:
        self.complete = True
