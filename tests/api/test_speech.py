"""What a form asks for is read field by field, and the model is told it in the words that its family knows."""

from __future__ import annotations

import pytest

from gateway.api import speech
from gateway.api.form import Form
from gateway.api.languages import english_name
from gateway.api.speech import Format, Wish
from gateway.errors import InvalidRequestError
from gateway.settings import Family

TRANSCRIPTIONS, TRANSLATIONS = speech.PATHS


def wish(path: str = TRANSCRIPTIONS, /, **fields: str | tuple[str, ...]) -> Wish:
    given = {name: (value,) if isinstance(value, str) else value for name, value in fields.items()}
    return speech.read(path, Form(given, b"sound"))


def test_form_without_fields_means_plain_json_without_chance() -> None:
    plain = wish()

    assert (plain.response_format, plain.stream, plain.language, plain.target) == (Format.JSON, False, None, None)
    assert plain.sampling == {"temperature": 0.0, "max_completion_tokens": 1024}


def test_fields_are_typed_and_those_of_sampling_go_to_the_engine() -> None:
    asked = wish(stream="true", temperature="0.4", seed="7", top_p="0.9", max_completion_tokens="50", model="gemma")

    assert (asked.stream, asked.model, asked.temperature) == (True, "gemma", 0.4)
    assert asked.sampling == {"temperature": 0.4, "max_completion_tokens": 50, "top_p": 0.9, "seed": 7}


def test_fields_that_mean_nothing_here_are_ignored() -> None:
    assert wish(chunking_strategy="auto", **{"chunking_strategy[type]": "server_vad", "user": "me"}) == wish()


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temperature": "hot"}, "temperature", "float"),
        ({"temperature": "3"}, "temperature", "<= 2"),
        ({"stream": "perhaps"}, "stream", "bool"),
        ({"seed": "1.5"}, "seed", "int"),
        ({"max_completion_tokens": "0"}, "max_completion_tokens", ">= 1"),
        ({"response_format": "yaml"}, "response_format", "yaml"),
        ({"response_format": "diarized_json"}, "response_format", "speakers"),
        ({"timestamp_granularities": ("segment", "word")}, "timestamp_granularities", "when a word was said"),
        ({"language": "klingonese"}, "language", "klingonese"),
        ({"stream": "1", "response_format": "srt"}, "stream", "not srt"),
        ({"include": "logprobs", "response_format": "text"}, "include", "json"),
    ],
)
def test_field_that_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, str | tuple[str, ...]], param: str, says: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wish(**fields)

    assert caught.value.param == param
    assert says in caught.value.message


def test_unknown_target_of_a_translation_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wish(TRANSLATIONS, to_language="xx")

    assert caught.value.param == "to_language"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("en", "English"),
        ("EL", "Greek"),
        ("pt-BR", "Brazilian Portuguese"),
        ("de-LI", "German"),
        ("yue", "Cantonese"),
        ("sWAHILI", "Swahili"),
        (" fr ", "French"),
        ("maori", "Māori"),
        ("Norwegian Bokmal", "Norwegian Bokmål"),
    ],
)
def test_language_is_known_by_code_and_by_name(given: str, name: str) -> None:
    assert english_name(given, "language") == name


@pytest.mark.parametrize("given", ["und", "zxx", "e", "english2", "-", "_"])
def test_what_is_no_language_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequestError):
        english_name(given, "language")


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        (TRANSCRIPTIONS, {}, "Transcribe this audio:"),
        (TRANSCRIPTIONS, {"language": "fr"}, "Transcribe this audio into French:"),
        (TRANSLATIONS, {}, "Translate this audio into English:"),
        (TRANSLATIONS, {"language": "fr", "to_language": "de"}, "Translate this audio from French into German:"),
    ],
)
def test_gemma_3n_is_told_in_vllms_own_words(path: str, fields: dict[str, str], told: str) -> None:
    assert wish(path, **fields).instruction(Family.GEMMA3N) == told
    assert speech.text_first(Family.GEMMA3N)


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        (TRANSCRIPTIONS, {}, "Transcribe the following speech segment in its original language."),
        (TRANSCRIPTIONS, {"language": "fr"}, "Transcribe the following speech segment in French into French text."),
        (TRANSLATIONS, {"language": "fr"}, "Translate the following speech segment in French into English."),
        (TRANSLATIONS, {"to_language": "de"}, "Translate the following speech segment into German."),
    ],
)
def test_gemma_4_is_told_in_its_cards_words(path: str, fields: dict[str, str], told: str) -> None:
    instruction = wish(path, **fields).instruction(Family.GEMMA4)

    assert instruction.splitlines()[0] == told
    assert "with no newlines" in instruction
    assert not speech.text_first(Family.GEMMA4)


def test_prompt_and_words_to_expect_are_context_before_the_task() -> None:
    instruction = wish(prompt="Ålesund, Møre", keywords=("Åse", "Bø"), hotwords="Ås").instruction(Family.GEMMA3N)

    context, task = instruction.split("\n\n")
    assert task == "Transcribe this audio:"
    assert "Åse, Bø, Ås" in context
    assert context.endswith("Ålesund, Møre")
