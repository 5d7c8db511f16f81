"""Pictures and sounds by every way that clients send them, through gateway, processor and encoders."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.engine import media
from tests.engine.media import audio_part, image_part, text_part

pytestmark = pytest.mark.engine

#: https://ai.google.dev/gemma: 40 ms of sound are one token.
AUDIO_TOKENS_PER_SECOND = 25


def ask(client: openai.OpenAI, parts: list[dict[str, object]], **body: object) -> ChatCompletion:
    return client.chat.completions.create(
        model="gemma",
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item,misc]
        max_tokens=4,
        temperature=0,
        extra_body={"ignore_eos": True, "return_token_ids": True, **body},
    )


def media_tokens(answer: ChatCompletion) -> dict[str, int]:
    """How many tokens of the prompt were media, by modality."""
    assert answer.usage is not None
    return answer.usage.prompt_tokens_details.multimodal_tokens or {}  # type: ignore[union-attr]


def tokens_of(answer: ChatCompletion) -> list[int]:
    return answer.choices[0].token_ids  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on loopback that has a picture and a clip; yields its URL."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "picture.png").write_bytes(media.encoded(media.picture()))
    (folder / "clip.wav").write_bytes(media.wav(media.sound(1.0)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web_server:
        threading.Thread(target=web_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()


def test_picture_is_the_same_by_data_url_http_url_and_local_path(
    client: openai.OpenAI, web: str, media_folder: Path
) -> None:
    (media_folder / "picture.png").write_bytes(media.encoded(media.picture()))
    urls = [
        media.data_url(media.encoded(media.picture()), "image/png"),
        f"{web}/picture.png",
        "picture.png",
        f"file://{media_folder}/picture.png",
    ]

    answers = [ask(client, [{"type": "image_url", "image_url": {"url": url}}, text_part("?")]) for url in urls]

    assert len({tuple(tokens_of(answer)) for answer in answers}) == 1
    assert all(media_tokens(answer)["image"] > 0 for answer in answers)


def test_clip_is_the_same_by_data_url_http_url_local_path_and_input_audio(
    client: openai.OpenAI, web: str, media_folder: Path
) -> None:
    clip = media.wav(media.sound(1.0))
    (media_folder / "clip.wav").write_bytes(clip)
    parts: list[dict[str, object]] = [
        audio_part(clip),
        {"type": "audio_url", "audio_url": {"url": f"{web}/clip.wav"}},
        {"type": "audio_url", "audio_url": {"url": "clip.wav"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(clip).decode(), "format": "wav"}},
    ]

    answers = [ask(client, [part, text_part("?")]) for part in parts]

    assert len({tuple(tokens_of(answer)) for answer in answers}) == 1
    assert all(media_tokens(answer)["audio"] >= AUDIO_TOKENS_PER_SECOND for answer in answers)


def test_several_pictures_cost_the_sum_and_their_order_matters(client: openai.OpenAI) -> None:
    first, second = image_part(media.picture(seed=1)), image_part(media.picture(640, 480, seed=2))

    one = media_tokens(ask(client, [first, text_part("?")]))["image"]
    other = media_tokens(ask(client, [second, text_part("?")]))["image"]
    both = ask(client, [first, second, text_part("?")], logprobs=True)
    swapped = ask(client, [second, first, text_part("?")], logprobs=True)

    assert media_tokens(both)["image"] == one + other == media_tokens(swapped)["image"]
    assert first_logprob(both) != pytest.approx(first_logprob(swapped), abs=1e-4)


def first_logprob(answer: ChatCompletion) -> float:
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    return answer.choices[0].logprobs.content[0].logprob


def test_picture_sound_and_text_in_one_message_are_all_counted(client: openai.OpenAI) -> None:
    parts = [text_part("Look"), image_part(media.picture()), audio_part(media.wav(media.sound(2.0))), text_part("?")]

    counted = media_tokens(ask(client, parts))

    assert counted["image"] > 0
    assert counted["audio"] >= 2 * AUDIO_TOKENS_PER_SECOND


CLIPS: dict[str, tuple[bytes, str]] = {}
for _rate in (8000, 44100, 48000):
    for _channels in (1, 2):
        _samples = media.sound(1.0, _rate, _channels)
        _name = f"{_rate} Hz {'stereo' if _channels == 2 else 'mono'}"
        CLIPS[f"WAV {_name}"] = media.written(_samples, _rate, "WAV", "PCM_16"), "audio/wav"
        CLIPS[f"FLAC {_name}"] = media.written(_samples, _rate, "FLAC"), "audio/flac"
        CLIPS[f"OGG Vorbis {_name}"] = media.written(_samples, _rate, "OGG", "VORBIS"), "audio/ogg"
        CLIPS[f"MP3 {_name}"] = media.written(_samples, _rate, "MP3"), "audio/mpeg"
        CLIPS[f"M4A {_name}"] = media.muxed(_samples, _rate, "mp4", "aac"), "audio/mp4"
        CLIPS[f"AAC {_name}"] = media.muxed(_samples, _rate, "adts", "aac"), "audio/aac"
        if _rate != 44100:
            CLIPS[f"OGG Opus {_name}"] = media.written(_samples, _rate, "OGG", "OPUS"), "audio/ogg"
            CLIPS[f"WebM {_name}"] = media.muxed(_samples, _rate, "webm", "libopus"), "audio/webm"


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS.keys())
def test_one_second_of_any_format_is_one_second_of_tokens(client: openai.OpenAI, clip: tuple[bytes, str]) -> None:
    counted = media_tokens(ask(client, [audio_part(*clip), text_part("?")]))["audio"]

    # Two markers, and what MP3 and AAC pad at their ends.
    assert AUDIO_TOKENS_PER_SECOND <= counted <= AUDIO_TOKENS_PER_SECOND + 7


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_picture_of_any_format_is_seen(client: openai.OpenAI, kind: str) -> None:
    assert media_tokens(ask(client, [image_part(media.picture(), kind), text_part("?")]))["image"] > 0


BUDGETS = [70, 140, 280, 560, 1120]


def image_tokens(client: openai.OpenAI, part: dict[str, object], **body: object) -> int:
    return media_tokens(ask(client, [part, text_part("?")], **body))["image"]


def test_five_budgets_give_five_counts_within_them(client: openai.OpenAI) -> None:
    large = media.picture(1600, 1200)

    counts = [image_tokens(client, image_part(large, max_soft_tokens=budget)) for budget in BUDGETS]

    assert counts == sorted(set(counts))
    assert all(0.8 * budget <= count <= budget + 2 for budget, count in zip(BUDGETS, counts, strict=True))
    assert counts == [image_tokens(client, image_part(large), max_soft_tokens=budget) for budget in BUDGETS]


def test_detail_chooses_the_budget(client: openai.OpenAI) -> None:
    large = media.picture(1600, 1200)

    by_detail = [image_tokens(client, image_part(large, detail=d)) for d in ("low", "auto", "high")]

    assert by_detail == [image_tokens(client, image_part(large), max_soft_tokens=b) for b in (70, 280, 1120)]


def test_parts_that_disagree_get_the_highest_budget_and_the_answer_says_so(client: openai.OpenAI) -> None:
    large = media.picture(1600, 1200)
    parts = [image_part(large, detail="low"), image_part(large, max_soft_tokens=140), text_part("?")]

    raw = client.chat.completions.with_raw_response.create(
        model="gemma",
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item,misc]
        max_tokens=1,
    )

    assert media_tokens(raw.parse())["image"] == 2 * image_tokens(client, image_part(large), max_soft_tokens=140)
    assert "140" in raw.headers["x-gemma-image-budget"]
    assert "70" in raw.headers["x-gemma-image-budget"]


BAD: dict[str, tuple[dict[str, object], str]] = {
    "broken base64": ({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!!"}}, "image_url"),
    "not an image": ({"type": "image_url", "image_url": {"url": media.data_url(b"hello", "image/png")}}, "image_url"),
    "truncated image": (
        {"type": "image_url", "image_url": {"url": media.data_url(media.encoded(media.picture())[:2000], "image/png")}},
        "image_url",
    ),
    "not a clip": (audio_part(b"hello"), "audio_url"),
    "31 seconds": (audio_part(media.wav(media.sound(31.0), subtype="PCM_16")), "audio_url"),
    "budget of 100": (image_part(media.picture(), max_soft_tokens=100), "max_soft_tokens"),
    "no such file": ({"type": "image_url", "image_url": {"url": "missing.png"}}, "image_url"),
    "outside the folder": ({"type": "image_url", "image_url": {"url": "../../../etc/passwd"}}, "image_url"),
    "ftp": ({"type": "image_url", "image_url": {"url": "ftp://example.com/a.png"}}, "image_url"),
}


@pytest.mark.parametrize(("part", "field"), BAD.values(), ids=BAD.keys())
def test_bad_media_is_a_4xx_that_names_the_part(client: openai.OpenAI, part: dict[str, object], field: str) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        ask(client, [text_part("Look"), part])

    error: Any = refusal.value.body
    assert refusal.value.status_code in (400, 413, 422)
    assert error["param"].startswith("messages[0].content[1]")
    assert field in error["param"]


def test_responses_and_messages_apis_take_pictures_too(client: openai.OpenAI, server: Any) -> None:
    import anthropic

    url = media.data_url(media.encoded(media.picture()), "image/png")
    content: list[Any] = [
        {"type": "input_image", "image_url": url, "detail": "low"},
        {"type": "input_text", "text": "?"},
    ]
    response = client.responses.create(model="gemma", input=[{"role": "user", "content": content}], max_output_tokens=8)
    with anthropic.Anthropic(base_url=server.url, api_key="any") as messages:
        source: Any = {"type": "base64", "media_type": "image/png", "data": url.split(",")[1]}
        message = messages.messages.create(
            model="gemma", max_tokens=8, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}]
        )

    assert response.usage is not None
    assert response.usage.input_tokens > 60
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert usage.input_tokens + cached > 60
