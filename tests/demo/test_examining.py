"""How the demonstration model is asked through an OpenAI address."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from gateway.demo.client import messages, said
from gateway.demo.lessons.curriculum import lesson
from gateway.demo.lessons.lesson import Lesson


def one(task: str) -> Lesson:
    return lesson(task, np.random.default_rng(0), (4, 4), 2.0)


def test_pictures_and_sounds_are_sent_as_they_are() -> None:
    taught = one("together")
    image, audio, text = messages(taught)[0]["content"]
    sent = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2])))
    assert sent.tobytes() == taught.pictures[0].image.tobytes()
    assert audio["audio_url"]["url"].startswith("data:audio/wav;base64,")
    assert text["type"] == "text"


def test_a_tool_call_of_the_api_is_read_as_the_model_writes_it() -> None:
    function = {"name": "add", "arguments": '{"b": 20, "a": 11}'}
    made = {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    assert said(made) == "<|tool_call>call:add{a:11,b:20}<tool_call|>"


def test_arguments_of_an_earlier_call_are_sent_as_a_json_string() -> None:
    calls = [message["tool_calls"] for message in messages(one("tool_answer")) if "tool_calls" in message]
    assert calls[0][0]["function"]["arguments"].startswith('{"city": "')
