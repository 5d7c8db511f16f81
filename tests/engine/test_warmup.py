"""The requests that an engine answers before it is called ready."""

from __future__ import annotations

import io
import wave

import msgspec
import pytest
from PIL import Image

from gateway.engine.readiness import Message, Receive, Scope, Send, respond
from gateway.engine.warmup import Probe, WarmUpError, picture, probes, sound, warm_up
from gateway.settings import Modality

TEXT, IMAGE, AUDIO, VIDEO = Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO


def test_there_is_one_request_of_each_modality() -> None:
    asked = list(probes("gemma", {TEXT, IMAGE, AUDIO, VIDEO}, has_template=True))
    assert [probe.modality for probe in asked] == [TEXT, IMAGE, AUDIO]
    kinds = [[part["type"] for part in probe.document["messages"][0]["content"]] for probe in asked]
    assert kinds == [["text"], ["image_url", "text"], ["audio_url", "text"]]


def test_a_model_that_reads_only_is_asked_text_only() -> None:
    assert [probe.modality for probe in probes("gemma", {TEXT}, has_template=True)] == [TEXT]


def test_a_model_without_a_chat_template_is_asked_for_a_completion() -> None:
    (probe,) = probes("gemma", {TEXT, IMAGE}, has_template=False)
    assert (probe.path, probe.document["prompt"]) == ("/v1/completions", "Hello")


def test_the_picture_is_a_picture() -> None:
    assert Image.open(io.BytesIO(picture())).size == (64, 64)


def test_the_sound_is_half_a_second_at_16_khz() -> None:
    with wave.open(io.BytesIO(sound())) as reader:
        assert (reader.getframerate(), reader.getnframes(), reader.getnchannels()) == (16_000, 8_000, 1)


async def test_the_whole_request_arrives_with_the_key() -> None:
    seen: list[tuple[Scope, Message]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, await receive()))
        await respond(send, 200, b"{}")

    await warm_up(application, [Probe(TEXT, "/v1/completions", {"prompt": "Hello"})], api_key="sk-1")
    ((scope, message),) = seen
    assert (scope["method"], scope["path"]) == ("POST", "/v1/completions")
    assert (b"authorization", b"Bearer sk-1") in scope["headers"]
    assert msgspec.json.decode(message["body"]) == {"prompt": "Hello"}


async def test_a_request_that_fails_is_told_with_its_answer() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 500, b"no such kernel")

    with pytest.raises(WarmUpError, match="image request with status 500: no such kernel"):
        await warm_up(application, [Probe(IMAGE, "/v1/chat/completions", {})])
