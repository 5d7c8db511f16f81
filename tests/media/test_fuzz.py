"""Whatever comes in, decoders and readers of content answer in time, with a result or an error that is for clients."""

from __future__ import annotations

import base64
import json
import time
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequestError, MediaError
from gateway.media import audio_formats, containers, sources, video_formats
from gateway.media.content import Content
from gateway.media.decode import Wanted, decode, seconds
from gateway.media.header import Base64, Plain, look
from gateway.media.parts import Dialect
from gateway.protocol import parse
from gateway.settings import Family, LongAudio, Modality
from tests.media import broken, strangers

WANTED = Wanted(
    tenant=None,
    family=Family.GEMMA4,
    max_soft_tokens=None,
    pan_and_scan=False,
    shrink=True,
    long_audio=LongAudio.SPLIT,
    video_audio=True,
    max_pixels=1_000_000,
    max_audio_seconds=60,
    max_clips=4,
    max_video_seconds=60,
    max_video_frames=4,
)

#: Seconds in which a file of a few kilobytes must be done with, on a machine that is busy with other things.
PATIENCE = 10

FEW = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=6_000, deadline=None, suppress_health_check=list(HealthCheck))

#: What lengths and counts may say, and what codecs look for.
TELLING = [
    *(number.to_bytes(4, order) for number in (0, 1, 2**31 - 1, 2**31, 2**32 - 1) for order in ("big", "little")),
    *strangers.MAGICS.values(),
    *(b"IHDR", b"IDAT", b"moov", b"mdat", b"stsz", b"data", b"fmt ", b"LIST", b"\0\0\1\xb3", b"\0\0\0\1\x67"),
]


@cache
def samples(modality: Modality) -> list[bytes]:
    made = {Modality.IMAGE: broken.images, Modality.AUDIO: broken.audio, Modality.VIDEO: broken.videos}
    return [data for data in made[modality]().values() if len(data) < 20_000]


@st.composite
def damaged(draw: st.DrawFn, modality: Modality) -> bytes:
    """A good file with some bytes replaced, pieces doubled, moved or taken out, and perhaps its end cut off."""
    data = bytearray(draw(st.sampled_from(samples(modality))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data), 600)) | st.integers(0, len(data)))
        length = draw(st.sampled_from([1, 2, 4, 16, 300]))
        piece = draw(st.binary(min_size=1, max_size=4) | st.sampled_from(TELLING) | st.just(bytes(data[-length:])))
        data[place : place + draw(st.sampled_from([0, len(piece), length]))] = piece
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


def whatever(modality: Modality) -> st.SearchStrategy[bytes]:
    noise = st.builds(bytes.__add__, st.sampled_from(list(strangers.MAGICS.values())), st.binary(max_size=300))
    return damaged(modality) | noise | st.binary(max_size=64)


def tried(modality: Modality, data: bytes) -> None:
    started = time.monotonic()
    try:
        assert decode(modality, data, embedded=False, wanted=WANTED).pieces
    except MediaError as fault:
        assert fault.message
    assert time.monotonic() - started < PATIENCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.AUDIO, Modality.VIDEO])
def test_decoders_answer_or_refuse(modality: Modality) -> None:
    FEW(given(whatever(modality))(lambda data: tried(modality, data)))()


@pytest.mark.extended
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.AUDIO, Modality.VIDEO])
def test_decoders_answer_or_refuse_for_long(modality: Modality) -> None:
    MANY(given(whatever(modality))(lambda data: tried(modality, data)))()


@pytest.mark.filterwarnings("ignore")
@FEW
@given(whatever(Modality.VIDEO))
def test_the_length_of_a_film_is_told_or_refused(data: bytes) -> None:
    try:
        assert 0 <= seconds(data, embedded=False, wanted=WANTED) <= WANTED.max_video_seconds
    except MediaError as fault:
        assert fault.message


@FEW
@given(whatever(Modality.IMAGE))
def test_a_look_never_fails_and_is_the_same_through_base64(data: bytes) -> None:
    assert look(Plain(data)) == look(Base64(base64.b64encode(data)))


@FEW
@given(st.binary(max_size=200))
def test_a_look_at_what_is_no_base64_never_fails(text: bytes) -> None:
    assert look(Base64(text)) is None


@FEW
@given(whatever(Modality.AUDIO) | whatever(Modality.VIDEO))
def test_containers_are_told_by_their_bytes_or_refused(data: bytes) -> None:
    assert containers.is_cut_off(data) in (True, False)
    assert len(containers.with_open_end(data)) == len(data)
    assert data.endswith(audio_formats.without_tag(data))
    assert video_formats.demuxer(data) is None or len(data) > 3
    try:
        assert audio_formats.sniff(data).demuxer
    except MediaError as fault:
        assert fault.message


WORDS = st.sampled_from(
    [
        *(
            "type",
            "image_url",
            "audio_url",
            "video_url",
            "input_audio",
            "input_image",
            "image",
            "url",
            "data",
            "format",
        ),
        *("detail", "source", "media_type", "uuid", "max_soft_tokens", "content", "output", "role", "text", "base64"),
        *("tool_result", "low", "high", "file", "image_embeds"),
    ]
)
URLS = st.sampled_from(
    [
        *(
            "data:",
            "data:,",
            "data:image/png;base64,",
            "data:image/png,AAAA",
            "data:;base64,AAAA",
            "file:///etc/passwd",
        ),
        *(
            "file://[x",
            "http://[::1",
            "https://example.com/a",
            "HTTP://x",
            "ftp://x",
            "javascript:1",
            "a.png",
            "\0",
            ":",
        ),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | URLS
PARTS = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": WORDS, "content": st.lists(PARTS, max_size=4) | PARTS}) | PARTS)


@settings(FEW, max_examples=150)
@given(MESSAGES, st.sampled_from(Dialect))
def test_content_of_any_shape_is_read_or_refused_by_name(tree: list[Any], dialect: Dialect) -> None:
    content = Content(json.loads(json.dumps(tree)), "messages", dialect)
    try:
        content.drop_uuids()
        for part in content.media():
            assert part.param.startswith(part.slot.where)
            part.wish()
            part.source()
    except InvalidRequestError as fault:
        assert fault.message


@FEW
@given(st.text(max_size=40) | st.builds(str.__add__, URLS, st.text(max_size=20)))
def test_any_url_is_a_source_or_refused(text: str) -> None:
    try:
        assert isinstance(sources.parse(text), sources.Source)
    except MediaError as fault:
        assert fault.message


@FEW
@given(
    st.binary(max_size=60) | st.builds(lambda tree: json.dumps({"model": "gemma", "messages": tree}).encode(), PARTS)
)
def test_any_body_is_a_request_or_refused(body: bytes) -> None:
    try:
        parse("/v1/chat/completions", body)
    except GatewayError as fault:
        assert 400 <= fault.status < 500
