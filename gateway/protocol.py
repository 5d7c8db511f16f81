"""What the gateway reads of a request: bytes in, bytes out, unknown fields untouched.

Only the top level of a body is decoded; each value stays raw JSON. A request that nothing changed is sent on
as the very bytes that came.

Base64 in a body is not even scanned: before decoding, every long run of it is carved out, and a short mark stands in
its place until the request is encoded again. So a picture of 4 MB costs one search for its end and no copy, and
whatever is decoded, compared or encoded in between is small.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidRequestError

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview
Body = bytes | bytearray

_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode

#: Bytes. A run shorter than this is decoded with the rest.
CARVED = 16 * 1024

#: What a carved run begins with, right after a quote. 64 of base64's characters can only stand inside a JSON string:
#: outside of one a comma, a colon or a bracket would have to follow the quote.
_BASE64 = re.compile(rb"(?:data:[\w./+=; -]{0,128}?;base64,)?(?=[A-Za-z0-9+/]{64})")

#: Nobody outside this process can know it, so that no client can write a mark.
_SECRET = secrets.token_hex(16)
_MARK = re.compile(f"carved-{_SECRET}-([0-9]+)-")
_MARK_BYTES = re.compile(_MARK.pattern.encode())


class InferenceRequest(msgspec.Struct, frozen=True):
    """One request to an inference route.

    `fields` holds the top level of the body, each value as raw JSON; `body` is the body as it came, or None once
    a field was replaced. `payloads` are the runs of base64 that were carved out.
    """

    path: str
    fields: Mapping[str, msgspec.Raw]
    body: Body | None
    payloads: Sequence[Buffer] = ()

    def get(self, name: str, kind: type[T]) -> T | None:
        """The value of a top-level field as `kind`; None where it is absent or null.

        Raises InvalidRequestError naming the field where the value has another type.
        """
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            return _decoder(kind).decode(raw)  # type: ignore[arg-type, no-any-return]
        except msgspec.ValidationError as fault:
            raise InvalidRequestError(f"'{name}' is invalid: {fault}", param=name) from fault
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise InvalidRequestError(f"'{name}' is not valid JSON: {fault}", param=name) from fault

    def payload(self, text: str) -> Buffer:
        """The bytes that a string of the request stands for: what was carved out of it, else its own (ASCII or not)."""
        mark = _MARK.fullmatch(text)
        return self.payloads[int(mark.group(1))] if mark else text.encode()

    def with_fields(
        self, changes: Mapping[str, Any], *, without: tuple[str, ...] = (), payloads: Sequence[Buffer] = ()
    ) -> InferenceRequest:
        """A request whose top-level fields `changes` replace or join the others, less the fields in `without`.

        `payloads` join those that are there: `mark(len(request.payloads) + i)` in `changes` stands for the i-th.
        """
        fields = dict(self.fields)
        for name in without:
            fields.pop(name, None)
        for name, value in changes.items():
            fields[name] = msgspec.Raw(_encode(value))
        return InferenceRequest(self.path, fields, None, (*self.payloads, *payloads))

    def with_raw(
        self,
        defaults: Mapping[str, msgspec.Raw],
        overrides: Mapping[str, msgspec.Raw],
        without: Iterable[str] = (),
    ) -> InferenceRequest:
        """A request with `defaults` where it lacks those fields, and `overrides` in any case, less the fields in
        `without`; values are raw JSON.
        """
        fields = {**defaults, **self.fields, **overrides}
        for name in without:
            fields.pop(name, None)
        return InferenceRequest(self.path, fields, None, self.payloads)

    @property
    def text_bytes(self) -> int:
        """Bytes of the body as it came, less what was carved out of it."""
        size = len(self.body or b"")
        return size - sum(map(len, self.payloads)) if self.payloads else size

    def encode(self) -> Sequence[Buffer]:
        """The body to send, in pieces."""
        if self.body is not None:
            return (self.body,)
        skeleton = _encode(self.fields)
        return list(_filled(skeleton, self.payloads)) if self.payloads else (skeleton,)


@lru_cache(64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind | None)


def mark(index: int) -> str:
    """What stands for a request's payload number `index` in its strings."""
    return f"carved-{_SECRET}-{index}-"


def parse(path: str, body: Body) -> InferenceRequest:
    """Decodes the top level of a JSON body.

    Raises InvalidRequestError where it is not a JSON object.
    """
    skeleton, payloads = _carve(body)
    try:
        fields = _top_level.decode(skeleton)
    except msgspec.ValidationError:
        raise InvalidRequestError("The request body must be a JSON object.") from None
    except RecursionError:
        raise InvalidRequestError("The request body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise InvalidRequestError(f"The request body is not valid JSON: {fault}.") from fault
    return InferenceRequest(path, fields, body, payloads)


def _carve(body: Body) -> tuple[Buffer, tuple[Buffer, ...]]:
    """The body with marks in place of long runs of base64, and those runs, which are views into it."""
    runs = list(_runs(body)) if len(body) > CARVED else []
    if not runs:
        return body, ()
    view = memoryview(body)
    pieces: list[Buffer] = []
    position = 0
    for index, (start, end) in enumerate(runs):
        pieces += (view[position:start], mark(index).encode())
        position = end
    return b"".join([*pieces, view[position:]]), tuple(view[start:end] for start, end in runs)


def _runs(body: Body) -> Iterator[tuple[int, int]]:
    """Where long runs of base64 start and end.

    Looks for a stretch without a quote, backwards from CARVED bytes ahead: most of a body is stepped over.
    """
    position = 0
    while position + CARVED < len(body):
        quote = body.rfind(b'"', position, position + CARVED)
        if quote >= 0:
            position = quote + 1
            continue
        end = body.find(b'"', position + CARVED)
        if end < 0:
            return
        prefix = _BASE64.match(body, position)
        if prefix and body[position - 1 : position] == b'"' and body.find(b"\\", position, end) < 0:
            yield prefix.end(), end
        position = end + 1


def _filled(skeleton: bytes, payloads: Sequence[Buffer]) -> Iterator[Buffer]:
    for at, piece in enumerate(_MARK_BYTES.split(skeleton)):
        yield payloads[int(piece)] if at % 2 else piece
