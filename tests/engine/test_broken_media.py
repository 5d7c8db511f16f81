"""Images that go to the engine unseen and are broken inside: the engine refuses them, and the gateway says which."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import openai
import pytest

from gateway.errors import MediaError
from gateway.launcher import Server
from gateway.media import image
from gateway.media.header import Plain, look
from gateway.settings import Family
from tests.engine.media import data_url, text_part
from tests.media import broken

pytestmark = pytest.mark.engine

KINDS = ("PNG", "PNG palette", "PNG 16 bit", "JPEG", "JPEG EXIF", "JPEG CMYK", "WebP lossy", "WebP lossless")


def unseen() -> Mapping[str, bytes]:
    """Those with flips and holes that the gateway does not look into."""
    found: dict[str, bytes] = {}
    for name, data in broken.images().items():
        if name in KINDS:
            made = {**broken.damages(name, data), **{f"flip {seed}": _flipped(data, seed) for seed in range(4)}}
            found |= {f"{name}, {kind}": damage for kind, damage in made.items() if look(Plain(damage)) is not None}
    return found


def _flipped(data: bytes, seed: int) -> bytes:
    """One bit of the last three quarters, where the pixels are, is another."""
    chance = random.Random(seed)
    place = chance.randrange(len(data) // 4, len(data) - 16)
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


UNSEEN = unseen()


def is_readable(data: bytes) -> bool:
    try:
        image.prepare(data, 10**6, Family.GEMMA4, None, shrink=True)
    except MediaError:
        return False
    return True


def test_the_corpus_has_both_kinds() -> None:
    readable = [is_readable(data) for data in UNSEEN.values()]
    assert (readable.count(True) > 5, readable.count(False) > 10) == (True, True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", UNSEEN.values(), ids=UNSEEN.keys())
def test_the_engine_reads_what_the_gateway_would_and_else_the_part_is_named(
    client: openai.OpenAI, server: Server, data: bytes
) -> None:
    pid = server.engine_pid
    part = {"type": "image_url", "image_url": {"url": data_url(data, "image/png")}}
    content: list[Any] = [text_part("Look"), part]

    try:
        client.chat.completions.create(model="gemma", messages=[{"role": "user", "content": content}], max_tokens=1)
        refusal = None
    except openai.BadRequestError as fault:
        refusal = fault.body

    assert (refusal is None) == is_readable(data)
    if isinstance(refusal, dict):
        assert (refusal["param"], refusal["code"]) == ("messages[0].content[1].image_url.url", "invalid_media")
    assert server.engine_pid == pid
