"""Clips of every format, and long ones by every policy, cost in the running engine what the arithmetic predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest

from gateway.media import audio, budget, sound
from gateway.settings import Family, LongAudio
from tests.engine.media import audio_part
from tests.engine.test_media import media_tokens
from tests.media import clips
from tests.media.samples import Samples, clip, tone

pytestmark = pytest.mark.engine

RATE = 22_050

CLIPS: dict[str, bytes] = {
    **{name: encode(tone(0.7, RATE, 2), RATE) for name, encode in (clips.LOSSLESS | clips.LOSSY).items()},
    **{name: encode(tone(0.7, 48_000, 2), 48_000) for name, (_, encode) in clips.FFMPEG.items()},
    "5.1": clips.by_ffmpeg("ipod", "aac")(tone(0.7, 48_000, 6), 48_000),
    "AMR narrow band": clips.AMR(tone(0.7, 8_000), 8_000),
    "AMR wide band": clips.wide_band_amr(0.7),
    "as it came": clip(tone(0.7, 16_000), 16_000),
    "the shortest": clip(tone(1, 16_000)[: audio.SHORTEST], 16_000, subtype="FLOAT"),
    "the longest": clip(tone(30, 16_000), 16_000),
}


def send(client: openai.OpenAI, data: bytes, **body: Any) -> Any:
    """One request for one token, with the headers of its answer."""
    messages: Any = [{"role": "user", "content": [audio_part(data), {"type": "text", "text": "?"}]}]
    return client.chat.completions.with_raw_response.create(
        model="gemma", messages=messages, max_tokens=1, temperature=0, extra_body=body
    )


@pytest.mark.parametrize("data", CLIPS.values(), ids=CLIPS.keys())
def test_every_format_costs_what_its_samples_cost(client: openai.OpenAI, data: bytes) -> None:
    samples = sound.decode(data, 60, 60).samples
    assert media_tokens(send(client, data).parse())["audio"] == budget.audio_tokens(samples.size, Family.GEMMA4)


@pytest.mark.parametrize("size", np.random.default_rng(8).integers(audio.SHORTEST, audio.LONGEST, 8).tolist())
def test_any_length_costs_what_was_predicted(client: openai.OpenAI, size: int) -> None:
    data = clip(tone(30, 16_000)[:size], 16_000)
    assert media_tokens(send(client, data).parse())["audio"] == budget.audio_tokens(size, Family.GEMMA4)


def long_talk() -> Samples:
    """70 s of noise with a pause every 7 s."""
    noise = 0.1 * np.random.default_rng(3).standard_normal(70 * 16_000)
    noise[np.arange(noise.size) % (7 * 16_000) < 6_400] *= 0.001
    return noise.astype(np.float32)


LONG = clip(long_talk(), 16_000)


@pytest.mark.parametrize("body", [{}, {"long_audio": "reject"}])
def test_a_long_clip_is_refused_by_default(client: openai.OpenAI, body: dict[str, str]) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"is 70 seconds long and the model hears 30.*long_audio"
    ) as refusal:
        send(client, LONG, **body)
    assert refusal.value.body["param"].startswith("messages[0].content[0]")  # type: ignore[index]


def test_a_long_clip_is_split_into_pieces_that_are_all_counted(client: openai.OpenAI) -> None:
    pieces = audio.prepare(LONG, 1800, Family.GEMMA4, LongAudio.SPLIT, 32).pieces
    answer = send(client, LONG, long_audio="split")
    assert len(pieces) == 3
    assert media_tokens(answer.parse())["audio"] == sum(piece.tokens for piece in pieces)
    assert "x-gemma-audio-truncated" not in answer.headers


def test_a_long_clip_is_truncated_with_a_header_that_says_so(client: openai.OpenAI) -> None:
    answer = send(client, LONG, long_audio="truncate")
    assert media_tokens(answer.parse())["audio"] == 752
    assert answer.headers["x-gemma-audio-truncated"] == "messages[0].content[0]; heard=30; seconds=70.0"


def test_a_split_clip_reads_as_its_pieces_in_order(client: openai.OpenAI) -> None:
    whole = long_talk()
    pieces = audio.prepare(LONG, 1800, Family.GEMMA4, LongAudio.SPLIT, 32).pieces
    starts = [round(piece.start * 16_000) for piece in pieces]
    parts = [audio_part(clip(part, 16_000, subtype="PCM_16")) for part in np.split(whole, starts[1:])]

    def first_logprob(content: list[dict[str, object]], **body: object) -> float:
        answer = client.chat.completions.create(
            model="gemma",
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": "?"}]}],  # type: ignore[list-item,misc]
            max_tokens=1,
            temperature=0,
            logprobs=True,
            extra_body=body,
        )
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.content is not None
        return answer.choices[0].logprobs.content[0].logprob

    split = first_logprob([audio_part(LONG)], long_audio="split")
    assert split == pytest.approx(first_logprob(parts), abs=1e-4)
    assert split != pytest.approx(first_logprob(parts[::-1]), abs=1e-4)
