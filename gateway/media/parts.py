"""Finds the media parts of a request in the three APIs' shapes, and writes them as the engine takes them. Pure.

The shapes are those that vLLM 0.32 accepts (renderers/chat_utils.py, entrypoints/openai/responses/protocol.py,
entrypoints/anthropic/serving.py); what it would answer with a misleading error is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.errors import InvalidRequestError, MediaError
from gateway.media import sources
from gateway.media.wishes import DETAILS, ImageWish, number
from gateway.settings import Modality


class Dialect(StrEnum):
    """An API, by the way it writes content parts."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"


#: Part type to its modality and the field that holds the source.
_KINDS = {
    "image_url": (Modality.IMAGE, "image_url"),
    "input_image": (Modality.IMAGE, "image_url"),
    "audio_url": (Modality.AUDIO, "audio_url"),
    "input_audio": (Modality.AUDIO, "input_audio"),
    "video_url": (Modality.VIDEO, "video_url"),
    "image": (Modality.IMAGE, "source"),
}
_OPENAI = ("image_url", "input_image", "audio_url", "input_audio", "video_url")
_ANTHROPIC = ("image",)

#: Part types that no engine here reads: files, and tensors, which would be unpickled.
_REFUSED = frozenset(
    {
        "file",
        "input_file",
        "document",
        "image_embeds",
        "audio_embeds",
        "video_embeds",
        "prompt_embeds",
        "image_pil",
        "input_video",
    }
)

#: vLLM tells a part without `type` by these keys, in this order.
_TELLING = (
    "image_url",
    "image_pil",
    "image_embeds",
    "audio_embeds",
    "video_embeds",
    "prompt_embeds",
    "audio_url",
    "input_audio",
    "video_url",
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One object in a list of content parts, `where` as `messages[2].content[0]`."""

    siblings: list[Any]
    index: int
    where: str

    @property
    def content(self) -> dict[str, Any]:
        """The part as it stands now."""
        part: dict[str, Any] = self.siblings[self.index]
        return part

    def put(self, parts: Sequence[dict[str, Any]]) -> bool:
        """Puts `parts` here, in place of the one; whether that changed anything. Later siblings move."""
        changed = list(parts) != [self.content]
        self.siblings[self.index : self.index + 1] = parts
        return changed


@dataclass(frozen=True, slots=True)
class Payload:
    """Media ready for the engine; `text` is its base64, `url` a data URL that already says the same.

    `uuid` is the engine's key for what it makes of this media.
    """

    modality: Modality
    media_type: str
    text: str
    uuid: str
    url: str | None = None

    def data_url(self) -> str:
        """As a data URL."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.text}"


@dataclass(frozen=True, slots=True)
class Part:
    """One image, clip or video. `text` is base64 where `embedded`, else a URL or path; `param` is its field's path."""

    slot: Slot
    kind: str
    modality: Modality
    text: str
    param: str
    embedded: bool = False
    detail: str | None = None
    max_soft_tokens: int | None = None

    def source(self) -> sources.Source:
        """What the part points at.

        Raises MediaError for a URL that is none.
        """
        return sources.Embedded(self.text) if self.embedded else sources.parse(self.text)

    def wish(self) -> ImageWish:
        """What the part asks of the image budget."""
        return ImageWish(f"{self.slot.where}.max_soft_tokens", self.detail, self.max_soft_tokens)


def slots(tree: list[Any], field: str, dialect: Dialect) -> Iterator[Slot]:
    """Every content part that is an object, within tool results too, in the order of the request."""
    for index, item in enumerate(tree):
        if isinstance(item, dict):
            yield from _within(item, f"{field}[{index}]", dialect)


def _within(item: dict[str, Any], where: str, dialect: Dialect) -> Iterator[Slot]:
    for key in ("content", "output") if dialect is Dialect.RESPONSES else ("content",):
        content = item.get(key)
        siblings: list[Any] = content if isinstance(content, list) else []
        for index, part in enumerate(siblings):
            if isinstance(part, dict):
                slot = Slot(siblings, index, f"{where}.{key}[{index}]")
                yield slot
                if dialect is Dialect.MESSAGES and part.get("type") == "tool_result":
                    yield from _within(part, slot.where, dialect)


def without_uuid(part: Mapping[str, Any]) -> dict[str, Any]:
    """The part less the client's `uuid`: in vLLM it is a cache key that all tenants share."""
    return {key: value for key, value in part.items() if key != "uuid"}


def read(slot: Slot, dialect: Dialect) -> Part | None:
    """The media part in a slot; None for text and for types that are left to the engine.

    Raises MediaError naming the part where its type is refused or a field of it is missing or wrong.
    """
    kind = _kind(slot.content)
    if kind == "image" and dialect is not Dialect.MESSAGES:
        raise MediaError(f"{slot.where}: send images as parts of type 'image_url'.", param=f"{slot.where}.type")
    if kind in _REFUSED:
        raise MediaError(f"{slot.where}: parts of type {kind!r} are not supported.", param=f"{slot.where}.type")
    if kind not in (_ANTHROPIC if dialect is Dialect.MESSAGES else _OPENAI):
        return None
    if dialect is Dialect.RESPONSES and kind != "input_image":
        raise MediaError(
            f"{slot.where}: the Responses API takes media as 'input_image' only, not {kind!r};"
            " for audio use /v1/chat/completions.",
            param=f"{slot.where}.type",
        )
    return _anthropic(slot) if dialect is Dialect.MESSAGES else _openai(slot, kind)


def render(part: Part, payloads: Sequence[Payload], dialect: Dialect) -> list[dict[str, Any]]:
    """The parts to send in place of one, equal to what came where that is already right, but for the engine's key."""
    return [_render(part, payload, dialect) for payload in payloads]


def _render(part: Part, payload: Payload, dialect: Dialect) -> dict[str, Any]:
    old = part.slot.content
    rest = {key: value for key, value in old.items() if key not in ("uuid", "max_soft_tokens")}
    if dialect is Dialect.MESSAGES:
        source = {"type": "base64", "media_type": payload.media_type, "data": payload.text}
        return rest | {"source": old["source"] if payload.text is part.text else source}
    if dialect is Dialect.RESPONSES:
        return rest | {"image_url": payload.data_url()}
    rest["uuid"] = payload.uuid
    if payload.modality is not part.modality:
        return {"type": "audio_url", "audio_url": {"url": payload.data_url()}, "uuid": payload.uuid}
    if part.kind == "input_audio":
        return rest | {"type": part.kind, "input_audio": {"data": payload.text, "format": "wav"}}
    return _render_url(part, rest, payload.data_url())


def _render_url(part: Part, rest: dict[str, Any], url: str) -> dict[str, Any]:
    """As `image_url`, `audio_url` or `video_url` of Chat Completions, the shape of which vLLM takes every variant."""
    field = f"{part.modality}_url"
    held = rest.pop(field)
    if part.kind == "input_image":
        rest.pop("detail", None)
    inner = {key: value for key, value in held.items() if key != "max_soft_tokens"} if isinstance(held, dict) else {}
    inner["url"] = url
    if part.kind == "input_image" and part.detail:
        inner["detail"] = part.detail
    return rest | {"type": field, field: inner}


def _kind(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind is None:
        return next((key for key in _TELLING if key in part), "")
    return kind if isinstance(kind, str) else ""


def _openai(slot: Slot, kind: str) -> Part:
    modality, field = _KINDS[kind]
    part = slot.content
    held = part.get(field)
    inner: Mapping[str, Any] = held if isinstance(held, dict) else {}
    path = f"{slot.where}.{field}"
    if kind == "input_audio":
        text = _text(held.get("data") if isinstance(held, dict) else None, f"{path}.data")
        return Part(slot, kind, modality, text, f"{path}.data", embedded=True)
    param = f"{path}.url" if isinstance(held, dict) else path
    text = _text(held.get("url") if isinstance(held, dict) else held, param)
    if modality is not Modality.IMAGE:
        return Part(slot, kind, modality, text, param)
    detail = _detail(part, inner, slot.where, path)
    tokens = _soft_tokens(part, inner, slot.where, path)
    return Part(slot, kind, modality, text, param, detail=detail, max_soft_tokens=tokens)


def _anthropic(slot: Slot) -> Part:
    source = slot.content.get("source")
    if not isinstance(source, dict):
        raise MediaError(f"{slot.where}.source must be an object.", param=f"{slot.where}.source")
    if "max_soft_tokens" in slot.content:
        param = f"{slot.where}.max_soft_tokens"
        raise InvalidRequestError(f"{param}: the Messages API has no image budget.", param=param)
    embedded = source.get("type", "base64") == "base64"
    if not embedded and source.get("type") != "url":
        param = f"{slot.where}.source.type"
        raise MediaError(f"{param} must be 'base64' or 'url'.", param=param)
    field = "data" if embedded else "url"
    param = f"{slot.where}.source.{field}"
    return Part(slot, "image", Modality.IMAGE, _text(source.get(field), param), param, embedded)


def _text(value: object, param: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise MediaError(f"{param} is missing, empty or not a string.", param=param)


def _detail(part: Mapping[str, Any], inner: Mapping[str, Any], where: str, path: str) -> str | None:
    value = inner.get("detail", part.get("detail"))
    if value is None or (isinstance(value, str) and value in DETAILS):
        return value
    param = f"{path if 'detail' in inner else where}.detail"
    raise InvalidRequestError(f"{param} must be one of {', '.join(DETAILS)}.", param=param)


def _soft_tokens(part: Mapping[str, Any], inner: Mapping[str, Any], where: str, path: str) -> int | None:
    value = inner.get("max_soft_tokens", part.get("max_soft_tokens"))
    return None if value is None else number(value, f"{path if 'max_soft_tokens' in inner else where}.max_soft_tokens")
