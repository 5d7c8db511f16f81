"""What the gateway reads of a request: bytes in, bytes out, unknown fields untouched.

Only the top level of a body is decoded; each value stays raw JSON. A request that nothing changed is sent on
as the very bytes that came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidRequestError

T = TypeVar("T")

_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request to an inference route.

    `fields` holds the top level of the body, each value as raw JSON; `body` is the body as it came, or None once
    a field was replaced.
    """

    path: str
    fields: Mapping[str, msgspec.Raw]
    body: bytes | None

    def get(self, name: str, kind: type[T]) -> T | None:
        """The value of a top-level field as `kind`; None where it is absent or null.

        Raises InvalidRequestError naming the field where the value has another type.
        """
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=kind | None)
        except msgspec.ValidationError as fault:
            raise InvalidRequestError(f"'{name}' is invalid: {fault}", param=name) from fault
        except msgspec.DecodeError as fault:
            raise InvalidRequestError(f"'{name}' is not valid JSON: {fault}", param=name) from fault

    def with_fields(self, changes: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> InferenceRequest:
        """A request whose top-level fields `changes` replace or join the others, less the fields in `without`."""
        fields = {name: raw for name, raw in self.fields.items() if name not in without}
        fields.update({name: msgspec.Raw(_encode(value)) for name, value in changes.items()})
        return replace(self, fields=fields, body=None)

    def encode(self) -> bytes:
        """The body to send."""
        return self.body if self.body is not None else _encode(self.fields)


def parse(path: str, body: bytes) -> InferenceRequest:
    """Decodes the top level of a JSON body.

    Raises InvalidRequestError where it is not a JSON object.
    """
    try:
        fields = _top_level.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequestError("The request body must be a JSON object.") from None
    except RecursionError:
        raise InvalidRequestError("The request body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise InvalidRequestError(f"The request body is not valid JSON: {fault}.") from fault
    return InferenceRequest(path, fields, body)
