"""Recordings through gateway, processor and encoder of a real engine; the small Gemma says noise, but counts truly."""

from __future__ import annotations

from types import SimpleNamespace

import openai
import pytest
from openai.types.audio import TranscriptionTextDoneEvent

from gateway.api import speech
from gateway.api.form import Form
from gateway.media import budget
from gateway.settings import Family
from tests.engine import media

pytestmark = pytest.mark.engine

RATE = 16_000
BRIEF = {"max_completion_tokens": 8}


def test_long_recording_costs_what_its_pieces_cost_and_is_told_at_their_times(client: openai.OpenAI) -> None:
    sound = media.sound(70.0)

    verbose = client.audio.transcriptions.create(
        file=("long.flac", media.written(sound, RATE, "FLAC")),
        model="gemma",
        response_format="verbose_json",
        language="en",
        extra_body=BRIEF,
    )
    plain = client.audio.transcriptions.create(
        file=("long.flac", media.written(sound, RATE, "FLAC")), model="gemma", language="en", extra_body=BRIEF
    )

    assert verbose.segments is not None
    times = [(segment.start, segment.end) for segment in verbose.segments]
    assert (times[0][0], times[-1][1], verbose.duration) == (0.0, 70.0, 70.0)
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    assert all(end - start <= 30 for start, end in times)
    assert all(segment.tokens and segment.avg_logprob < 0 for segment in verbose.segments)
    expected = sum(budget.audio_tokens(round((end - start) * RATE), Family.GEMMA4) for start, end in times)
    assert plain.usage is not None
    assert plain.usage.type == "tokens"
    assert plain.usage.input_token_details is not None
    assert plain.usage.input_token_details.audio_tokens == expected
    assert plain.usage.output_tokens == 8 * len(times)


def test_stream_says_the_same_as_the_answer_that_comes_whole(client: openai.OpenAI) -> None:
    clip = ("clip.wav", media.wav(media.sound(2.0)))

    whole = client.audio.transcriptions.create(file=clip, model="gemma", extra_body=BRIEF)
    *deltas, done = client.audio.transcriptions.create(file=clip, model="gemma", stream=True, extra_body=BRIEF)

    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == whole.text == "".join(each.delta for each in deltas if each.type == "transcript.text.delta")
    assert done.usage is not None
    assert whole.usage is not None
    assert done.usage.to_dict() == whole.usage.to_dict()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK thinks of its own models
def test_translation_is_another_task_for_the_model(client: openai.OpenAI) -> None:
    clip = ("clip.wav", media.wav(media.sound(2.0)))

    answer = client.audio.translations.create(
        file=clip, model="gemma", response_format="verbose_json", extra_body=BRIEF
    )

    assert (answer.language, answer.duration) == ("english", 2.0)


@pytest.mark.parametrize("path", speech.PATHS)
def test_gemma_3n_is_told_what_vllms_own_route_tells_it_in_each_of_its_languages(path: str) -> None:
    from vllm.model_executor.models.gemma3n_mm import Gemma3nForConditionalGeneration as Gemma3n

    task = "translate" if path == speech.TRANSLATIONS else "transcribe"
    for language in (None, *Gemma3n.supported_languages):
        theirs = SimpleNamespace(audio=None, language=language, task_type=task, to_language="en")
        theirs.stt_config = SimpleNamespace(sample_rate=RATE)
        prompt = str(Gemma3n.get_generation_prompt(theirs)["prompt"])
        fields = {"language": (language,)} if language else {}
        ours = speech.read(path, Form(fields, b"")).instruction(Family.GEMMA3N).replace("Māori", "Maori")
        assert prompt == f"<start_of_turn>user\n{ours} <audio_soft_token><end_of_turn>\n<start_of_turn>model\n"


def test_engines_own_refusal_reaches_the_client(client: openai.OpenAI) -> None:
    clip = ("clip.wav", media.wav(media.sound(1.0)))

    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=clip, model="gemma", extra_body={"top_p": 7})

    assert "top_p" in caught.value.message
