"""The content of a request, with its media parts taken out and filled in again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.media import parts, sources
from gateway.media.parts import Dialect, Part, Payload
from gateway.media.preparation import Ready
from gateway.media.prepared import Piece
from gateway.protocol import Buffer, InferenceRequest, mark


@dataclass(frozen=True, slots=True)
class Content:
    """The field that holds content parts, decoded for this request alone, so that parts are replaced in place."""

    tree: list[Any]
    field: str
    dialect: Dialect

    def drop_uuids(self) -> bool:
        """Drops the clients' own cache keys; whether there were any."""
        return True in [slot.put([parts.without_uuid(slot.content)]) for slot in self._slots()]

    def media(self) -> list[Part]:
        """Every media part, in the order of the request.

        Raises MediaError naming a part that is refused or misses a field.
        """
        read = (parts.read(slot, self.dialect) for slot in self._slots())
        return [part for part in read if part is not None]

    def replace(self, found: Sequence[Part], payloads: Sequence[Sequence[Payload]]) -> bool:
        """Puts the payloads of each part in its place; whether that changed anything."""
        pairs = reversed(list(zip(found, payloads, strict=True)))
        return True in [part.slot.put(parts.render(part, pieces, self.dialect)) for part, pieces in pairs]

    def _slots(self) -> Iterator[parts.Slot]:
        return parts.slots(self.tree, self.field, self.dialect)


class Filling:
    """Turns pieces into payloads of a request. `added` collects the base64 that is new to it."""

    def __init__(self, request: InferenceRequest) -> None:
        self._next = len(request.payloads)
        self.added: list[Buffer] = []

    def payloads(self, part: Part, ready: Ready) -> list[Payload]:
        """What stands in for `part`."""
        source = part.source()
        here = source if isinstance(source, sources.Embedded) else sources.Embedded("")
        return [self._payload(piece, here, ready.uuid(at)) for at, piece in enumerate(ready.prepared.pieces)]

    def _payload(self, piece: Piece, here: sources.Embedded, uuid: str) -> Payload:
        if piece.base64 is None:
            return Payload(piece.modality, piece.media_type, here.base64, uuid, here.url)
        self.added.append(piece.base64)
        self._next += 1
        return Payload(piece.modality, piece.media_type, mark(self._next - 1), uuid)
