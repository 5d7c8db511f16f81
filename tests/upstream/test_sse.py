"""Server-sent events as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EngineFailedError
from gateway.settings import Modality
from gateway.upstream import sse

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
TEXT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@given(st.lists(st.sampled_from([TEXT, USAGE, DONE, b": keep-alive\n\n"])), st.data())
def test_any_cut_of_a_stream_is_put_together_at_ends_of_events(events: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    aligner = sse.EventAligner()

    pieces = [aligner.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert b"".join(pieces) + aligner.flush() == stream
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in pieces)


def test_event_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    aligner = sse.EventAligner()

    with pytest.raises(EngineFailedError):
        for _ in range(20):
            aligner.feed(b"x" * 1024 * 1024)


def test_usage_only_events_are_taken_out_and_others_stay() -> None:
    assert sse.without_usage_only(TEXT + USAGE + DONE) == TEXT + DONE
    assert sse.without_usage_only(USAGE) == b""


def test_text_that_looks_like_usage_or_an_error_is_neither() -> None:
    event = b'data: {"choices":[],"text":"\\"usage\\":{ data: {\\"error\\": event: error"}\n\n'

    assert sse.USAGE_MARK not in event
    assert not sse.has_error(event)


@pytest.mark.parametrize("error", [b'data: {"error":{"message":"x"}}\n\n', b'event: error\ndata: {"type":"error"}\n\n'])
def test_nothing_after_an_error_event_is_kept(error: bytes) -> None:
    assert sse.has_error(TEXT + error + DONE)
    assert sse.split_error(TEXT + error + DONE) == (TEXT, error)


BLAMES = {
    "bad request": (b'data: {"error":{"message":"x","type":"BadRequestError","code":400}}\n\n', True),
    "anthropic's bad request": (
        b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error"}}\n\n',
        True,
    ),
    "internal": (b'data: {"error":{"message":"x","type":"InternalServerError","code":500}}\n\n', False),
    "anthropic's internal": (b'event: error\ndata: {"type":"error","error":{"type":"internal_error"}}\n\n', False),
    "unreadable": (b"event: error\ndata: oops\n\n", False),
}


@pytest.mark.parametrize(("event", "expected"), BLAMES.values(), ids=BLAMES.keys())
def test_only_errors_about_the_request_are_for_the_client(event: bytes, expected: bool) -> None:
    assert sse.blames_client(event) is expected


USAGES = {
    "chat": (USAGE, 5, 2),
    "anthropic": (
        b"event: message_delta\n"
        b'data: {"type":"x","usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":9}}\n\n',
        7,
        9,
    ),
    "responses": (
        b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":4,"output_tokens":1}}}\n\n',
        4,
        1,
    ),
}


@pytest.mark.parametrize(("event", "prompt", "completion"), USAGES.values(), ids=USAGES.keys())
def test_usage_is_read_in_every_apis_spelling(event: bytes, prompt: int, completion: int) -> None:
    document = sse.last_event_with_usage(TEXT + event + DONE)

    assert document is not None
    usage = sse.usage_of(document)
    assert usage is not None
    assert (usage.prompt, usage.completion) == (prompt, completion)


def test_media_tokens_are_read_by_modality() -> None:
    details = b'{"cached_tokens":1,"multimodal_tokens":{"image":262,"audio":75}}'

    usage = sse.usage_of(b'{"usage":{"prompt_tokens":400,"prompt_tokens_details":' + details + b"}}")

    assert usage is not None
    assert usage.media == {"image": 262, "audio": 75}


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b'{"usage":5}', b'{"usage":null}', b"\xff"])
def test_document_without_readable_usage_has_none(document: bytes) -> None:
    assert sse.usage_of(document) is None


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (',"prompt_tokens_details":null', {"image_tokens": 64, "audio_tokens": 25}),
        (',"prompt_tokens_details":{}', {"image_tokens": 64, "audio_tokens": 25}),
        (',"prompt_tokens_details":{"cached_tokens":3}', {"image_tokens": 64, "audio_tokens": 25, "cached_tokens": 3}),
        ("", {"image_tokens": 64, "audio_tokens": 25}),
    ],
)
def test_media_tokens_join_the_usage_whatever_the_engine_tells(details: str, expected: dict[str, int]) -> None:
    said = json.dumps('"usage":{"prompt_tokens_details":null}')
    reply = f'{{"content":{said},"usage":{{"prompt_tokens":100{details}}}}}'.encode()

    told = json.loads(sse.with_media_tokens(reply, b"prompt_tokens_details", {Modality.IMAGE: 64, Modality.AUDIO: 25}))

    assert told["usage"] == {"prompt_tokens": 100, "prompt_tokens_details": expected}
    assert told["content"] == '"usage":{"prompt_tokens_details":null}'
