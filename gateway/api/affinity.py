"""What a request tells about where its caches are: hashes of its beginnings. Pure.

Three beginnings, each longer than the one before: the system prompt with the tools; then what many conversations may
share of the first turn, its media or the head of a long text; then the first turn. What comes after that differs from
turn to turn and does not count, so that all turns of a conversation have the same hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec
from blake3 import blake3

from gateway.protocol import Buffer, InferenceRequest, mark
from gateway.upstream.policies import NO_HINTS, Hints

#: Bytes of JSON. A request with less text and no media has nothing worth finding: the engine prefills it in one step.
_SHORT = 1024

#: Bytes of JSON. Of a longer first turn the beginning may be a template or a document that others send as well.
_HEAD = 2048

#: Bytes. Of a bare prompt no more is taken, since a conversation that is kept in a prompt grows at its end.
_PROMPT = 2 * _HEAD

#: Bytes at each end of a medium that stand for it, with its length.
_ENDS = 4096

#: Where each API has its turns, and what it puts before them.
_TURNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("messages", ("tools",)),
    "/v1/responses": ("input", ("tools", "instructions")),
    "/v1/messages": ("messages", ("tools", "system")),
    "/v1/completions": ("prompt", ()),
}

#: Fields that keep requests apart in the engine's cache.
_APART = ("model", "cache_salt")

#: By this the client tells apart conversations that begin alike.
_KEY = "prompt_cache_key"

#: Anthropic's clients move this from turn to turn.
_CACHE_CONTROL = re.compile(rb',\s*"cache_control"\s*:\s*\{[^{}]*\}')

_SYSTEM = frozenset({"system", "developer"})


class _Turn(msgspec.Struct):
    role: str = ""


_read_turns = msgspec.json.Decoder(list[msgspec.Raw])
_read_turn = msgspec.json.Decoder(_Turn)


def hints(request: InferenceRequest, session: bytes | None, tenant: str | None) -> Hints:
    """The beginnings of a request, and its session. `tenant` tells who shares its caches; None: everyone.

    Never raises: what cannot be read gives no prefixes, and the engine will say what is wrong with it.
    """
    try:
        prefixes = _prefixes(request, tenant)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        prefixes = ()
    return Hints(prefixes, session) if prefixes or session else NO_HINTS


def _prefixes(request: InferenceRequest, tenant: str | None) -> tuple[int, ...]:
    name, before = _TURNS.get(request.path, ("", ()))
    fields = request.fields
    if name not in fields:
        return ()
    raw, tools = bytes(fields[name]), b"".join(bytes(fields[field]) for field in before if field in fields)
    if len(raw) + len(tools) < _SHORT and not request.payloads:
        return ()
    system, first = (b"", raw[:_PROMPT]) if name == "prompt" else _beginning(raw)
    system += tools
    if request.path == "/v1/messages":
        system, first = _CACHE_CONTROL.sub(b"", system), _CACHE_CONTROL.sub(b"", first)
    first, media = _with_media(first, request)
    head = media or first[:_HEAD]
    if _KEY in fields:
        first += bytes(fields[_KEY])
    return tuple(_hashes(_apart(fields, tenant), system, head, first))


def _apart(fields: Mapping[str, msgspec.Raw], tenant: str | None) -> bytes:
    told = [bytes(fields[field]) for field in _APART if field in fields]
    return b"\0".join([b"" if tenant is None else tenant.encode(), *told])


def _beginning(raw: bytes) -> tuple[bytes, bytes]:
    """The system's messages and the first turn; of a bare text, which is a turn, its beginning."""
    if not raw.startswith(b"["):
        return b"", raw[:_PROMPT]
    system = b""
    for turn in map(bytes, _read_turns.decode(raw)):
        if not _is_system(turn):
            return system, turn
        system += turn
    return system, b""


def _is_system(turn: bytes) -> bool:
    return turn.startswith(b"{") and _read_turn.decode(turn).role in _SYSTEM


def _with_media(first: bytes, request: InferenceRequest) -> tuple[bytes, bytes]:
    """The first turn with hashes in place of the marks, which differ from process to process, and those hashes."""
    media = b""
    for index, payload in enumerate(request.payloads):
        if (carved := mark(index).encode()) in first:
            digest = _digest(payload)
            first = first.replace(carved, digest)
            media += digest
    return first, media


def _digest(payload: Buffer) -> bytes:
    ends = blake3(b"%d " % len(payload))
    ends.update(payload[:_ENDS])
    ends.update(payload[-_ENDS:])
    return ends.hexdigest(length=16).encode()


def _hashes(apart: bytes, system: bytes, head: bytes, first: bytes) -> Iterator[int]:
    """Of each beginning that is there; the last one is the conversation's."""
    running = blake3(apart)
    if system:
        running.update(b"\0" + system)
        yield int.from_bytes(running.digest(length=8))
    if head != first:
        running.update(b"\0" + head)
        yield int.from_bytes(running.digest(length=8))
    running.update(b"\0" + first)
    yield int.from_bytes(running.digest(length=8))
