"""A transcript joins what comes in pieces, counts it, and writes only times that are true."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import speech, transcript
from gateway.api.form import Form
from gateway.api.hearing import Chunk
from gateway.api.speech import Wish
from gateway.api.transcript import Joiner, Transcript
from gateway.media.prepared import Piece
from gateway.settings import Modality


def piece(start: float, seconds: float) -> Piece:
    return Piece(Modality.AUDIO, "audio/wav", b"", 0, start, seconds)


def chunk(text: str = "", **fields: object) -> Chunk:
    choice = {"delta": {"content": text}, **fields}
    return msgspec.convert({"choices": [choice]}, Chunk)


def usage(prompt: int, completion: int, audio: int) -> Chunk:
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"multimodal_tokens": {"audio": audio}},
    }
    return msgspec.convert({"choices": [], "usage": counts}, Chunk)


def wish(path: str = speech.PATHS[0], **fields: str) -> Wish:
    return speech.read(path, Form({name: (value,) for name, value in fields.items()}, b""))


def heard(*texts: str) -> Transcript:
    """A clip of pieces of 20 s, of which each says one text."""
    made = Transcript([piece(20.0 * index, 20.0) for index in range(len(texts))])
    for index, text in enumerate(texts):
        made.add(index, chunk(text))
    return made


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (("One.", "Two."), "One. Two."),
        ((" One. \n", "\n Two."), "One. Two."),
        (("", "One", "  ", "two", ""), "One two"),
        (("你好。", "世界"), "你好。世界"),
        (("こんにちは", "カタカナ"), "こんにちはカタカナ"),
        (("สวัสดี", "ครับ"), "สวัสดีครับ"),
        (("안녕", "하세요"), "안녕 하세요"),
        (("a\n b", "c"), "a\n b c"),
    ],
)
def test_pieces_are_joined_as_their_script_is_written(texts: tuple[str, ...], whole: str) -> None:
    assert heard(*texts).text == whole


@given(st.lists(st.lists(st.text(alphabet="ab 你\n", max_size=4), max_size=5), max_size=5))
def test_text_is_the_same_however_it_comes_in_chunks(pieces: list[list[str]]) -> None:
    joiner = Joiner()

    streamed = "".join(joiner.add(index, text) for index, texts in enumerate(pieces) for text in texts)

    assert streamed == heard(*("".join(texts) for texts in pieces)).text
    assert streamed == streamed.strip()


def test_usage_is_the_sum_over_the_pieces() -> None:
    made = Transcript([piece(0, 20), piece(20, 10)])
    made.add(0, usage(520, 30, 500))
    made.add(1, usage(270, 10, 250))

    _, body = transcript.render(made, wish())

    assert json.loads(body)["usage"] == {
        "type": "tokens",
        "input_tokens": 790,
        "input_token_details": {"audio_tokens": 750, "text_tokens": 40},
        "output_tokens": 40,
        "total_tokens": 830,
    }


def test_segments_are_the_pieces_in_which_something_was_said() -> None:
    _, body = transcript.render(heard("One.", " ", "Two."), wish(response_format="verbose_json", language="en"))

    told = json.loads(body)
    assert [(s["id"], s["start"], s["end"], s["text"]) for s in told["segments"]] == [
        (0, 0.0, 20.0, "One."),
        (1, 40.0, 60.0, "Two."),
    ]
    assert (told["task"], told["language"], told["duration"], told["text"]) == (
        "transcribe",
        "english",
        60.0,
        "One. Two.",
    )
    assert told["usage"] == {"type": "duration", "seconds": 60.0}
    assert "words" not in told


def test_figures_of_a_segment_are_those_of_the_engine_or_null() -> None:
    made = heard("Hello")
    unknown = json.loads(transcript.render(made, wish(response_format="verbose_json"))[1])["segments"][0]
    logprobs = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
    made.add(0, chunk(logprobs=logprobs, token_ids=[5, 6]))

    known = json.loads(transcript.render(made, wish(response_format="verbose_json"))[1])["segments"][0]

    assert (unknown["avg_logprob"], unknown["tokens"], unknown["no_speech_prob"]) == (None, [], None)
    assert (known["avg_logprob"], known["tokens"]) == (-1.0, [5, 6])


def test_translation_tells_its_own_language() -> None:
    asked = wish(speech.TRANSLATIONS, response_format="verbose_json", language="fr")

    told = json.loads(transcript.render(heard("Hello"), asked)[1])

    assert (told["task"], told["language"]) == ("translate", "english")


def test_language_that_nobody_told_is_null() -> None:
    assert json.loads(transcript.render(heard("Hello"), wish(response_format="verbose_json"))[1])["language"] is None


def test_subrip_has_one_numbered_cue_for_each_segment() -> None:
    made = Transcript([piece(0, 29.9996), piece(3599.5, 30.25)])
    made.add(0, chunk("One\n\ntwo"))
    made.add(1, chunk("Three & <four>"))

    _, body = transcript.render(made, wish(response_format="srt"))

    assert body.decode() == (
        "1\n00:00:00,000 --> 00:00:30,000\nOne two\n\n2\n00:59:59,500 --> 01:00:29,750\nThree & <four>\n\n"
    )


def test_webvtt_escapes_what_would_be_markup() -> None:
    _, body = transcript.render(heard("a --> b", "<c> & d"), wish(response_format="vtt"))

    assert body.decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:20.000\na --&gt; b\n\n00:00:20.000 --> 00:00:40.000\n&lt;c&gt; &amp; d\n\n"
    )


def test_nothing_said_is_an_empty_text_in_every_format() -> None:
    bodies = {f: transcript.render(Transcript([]), wish(response_format=f))[1].decode() for f in speech.Format}

    assert json.loads(bodies[speech.Format.JSON])["text"] == ""
    assert json.loads(bodies[speech.Format.VERBOSE])["segments"] == []
    assert (bodies[speech.Format.TEXT], bodies[speech.Format.SRT], bodies[speech.Format.VTT]) == (
        "\n",
        "",
        "WEBVTT\n\n",
    )


def test_logprobs_that_were_asked_for_are_told_in_order() -> None:
    made = Transcript([piece(0, 20), piece(20, 20)])
    for index, token in enumerate("ab"):
        made.add(index, chunk(token, logprobs={"content": [{"token": token, "logprob": -1.0, "bytes": [97]}]}))

    told = json.loads(transcript.render(made, wish(include="logprobs"))[1])

    assert told["logprobs"] == [
        {"token": "a", "logprob": -1.0, "bytes": [97]},
        {"token": "b", "logprob": -1.0, "bytes": [97]},
    ]
