"""Films through gateway and engine: what they cost, that they are seen, and that vLLM's own decoder sees the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from gateway.launcher import Server
from gateway.media import video
from gateway.media.budget import VIDEO_FRAME_BUDGET, video_tokens
from tests.engine.media import data_url, sound, text_part
from tests.media.films import SIZE, drawn, film, limits

pytestmark = pytest.mark.engine

#: Largest difference of a log probability; none was met. Where frames are shrunk, by Pillow here and by torch in the
#: engine, both round to whole shades, now and then to the neighbour; 0.006 was met.
TOLERANCE, TOLERANCE_WHERE_SHRUNK = 1e-4, 2e-2


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[httpx.Client]:
    """The engine itself, past the gateway."""
    transport = httpx.HTTPTransport(uds=str(server.engine_socket))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
        yield client


def video_part(content: bytes) -> dict[str, object]:
    return {"type": "video_url", "video_url": {"url": data_url(content, "video/mp4")}}


def body(*parts: dict[str, object]) -> dict[str, Any]:
    return {
        "model": "gemma",
        "messages": [{"role": "user", "content": [*parts, text_part("?")]}],
        "max_tokens": 4,
        "temperature": 0,
        "logprobs": True,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def ask(client: openai.OpenAI, *parts: dict[str, object], **fields: object) -> dict[str, Any]:
    """The gateway's answer."""
    return client.post("/chat/completions", body=body(*parts) | fields, cast_to=httpx.Response).json()  # type: ignore[no-any-return]


def ask_engine(engine: httpx.Client, *parts: dict[str, object]) -> dict[str, Any]:
    """The answer of the engine alone, which decodes by itself."""
    response = engine.post("/v1/chat/completions", json=body(*parts))
    assert response.is_success, response.text
    return response.json()  # type: ignore[no-any-return]


def counted(answer: dict[str, Any]) -> dict[str, int]:
    return answer["usage"]["prompt_tokens_details"]["multimodal_tokens"]  # type: ignore[no-any-return]


def logprobs(answer: dict[str, Any]) -> list[float]:
    return [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]


FILMS = {
    "a second": {"frames": 24},
    "more frames than are shown": {"frames": 130},
    "over a minute": {"frames": 70, "rate": 1},
    "as costly as can be": {"frames": 32, "size": (960, 672)},
    "upright": {"frames": 5, "size": (180, 320)},
    "large": {"frames": 5, "size": (1280, 720)},
    "odd": {"frames": 5, "size": (333, 77), "pixel_format": "yuv444p"},
    "turned": {"frames": 5, "rotation": 90},
    "NTSC": {"frames": 60, "rate": 29.97},
    "WebM": {"container": "webm", "codec": "libvpx-vp9", "frames": 12},
    "AVI": {"container": "avi", "codec": "mpeg4", "frames": 40},
}


@pytest.mark.parametrize("options", FILMS.values(), ids=FILMS.keys())
def test_the_engine_counts_what_the_arithmetic_predicts_and_sees_what_its_own_decoder_would(
    client: openai.OpenAI, engine: httpx.Client, options: dict[str, Any]
) -> None:
    content = film(**options)

    ours, theirs = ask(client, video_part(content)), ask_engine(engine, video_part(content))

    assert counted(ours) == counted(theirs) == {"video": video.prepare(content, limits()).pieces[0].tokens}
    assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
    width, height = options.get("size", SIZE)
    tolerance = TOLERANCE_WHERE_SHRUNK if width * height > VIDEO_FRAME_BUDGET * 48**2 else TOLERANCE
    np.testing.assert_allclose(logprobs(ours), logprobs(theirs), atol=tolerance)


def test_different_films_give_different_answers(client: openai.OpenAI) -> None:
    answers = [ask(client, video_part(film(frames=frames))) for frames in (20, 21)]
    backwards = film(frames=[drawn(number) for number in reversed(range(20))])

    answers.append(ask(client, video_part(backwards)))

    assert len({tuple(np.round(logprobs(answer), 5)) for answer in answers}) == 3
    assert answers[0]["prompt_token_ids"] == answers[2]["prompt_token_ids"]


def test_films_of_one_request_keep_their_own_lengths_under_one_rate(client: openai.OpenAI) -> None:
    short, long = film(frames=24), film(frames=96)
    rate = video.common_rate([1.0, 4.0], 32)

    answer = ask(client, video_part(short), video_part(long))

    expected = [video_tokens(*SIZE, [index / rate for index in range(count)]) for count in (8, 32)]
    assert counted(answer) == {"video": sum(expected)}


def test_a_film_that_is_slower_has_other_times_in_its_prompt(client: openai.OpenAI) -> None:
    fast, slow = (ask(client, video_part(film(frames=12, rate=rate))) for rate in (12, 0.5))

    assert counted(fast) == counted(slow)
    assert fast["prompt_token_ids"] != slow["prompt_token_ids"]


def test_the_sound_of_a_film_is_heard_where_it_is_asked_for(client: openai.OpenAI) -> None:
    content = film(frames=24, sound=sound(1.0))

    silent, heard = (ask(client, video_part(content), video_audio=wish) for wish in (False, True))

    assert set(counted(silent)) == {"video"}
    assert counted(heard)["video"] == counted(silent)["video"]
    assert 25 <= counted(heard)["audio"] <= 32


def test_a_film_of_one_frame_is_seen_although_vllm_alone_would_refuse_it(client: openai.OpenAI) -> None:
    assert counted(ask(client, video_part(film(frames=1)))) == {"video": video_tokens(*SIZE, [0.0])}


def test_frames_are_what_a_wide_film_costs(client: openai.OpenAI) -> None:
    answer = ask(client, video_part(film(frames=3, size=(960, 64))))

    assert counted(answer)["video"] == video_tokens(960, 64, [0, 1 / 24, 2 / 24])


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", film()[:-3000]], ids=["a playlist", "cut off"]
)
def test_what_is_no_whole_film_is_a_400_that_names_the_part(client: openai.OpenAI, content: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, video_part(content))

    error: Any = refusal.value.body
    assert error["param"].startswith("messages[0].content[0]")
    assert "the video is truncated" in error["message"] or "no video of a known format" in error["message"]
