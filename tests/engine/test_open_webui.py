"""The calls that Open WebUI makes, in the shapes that it sends them."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway.launcher import Server
from tests.engine import media

pytestmark = pytest.mark.engine

HEADERS = {"Authorization": "Bearer anything", "Content-Type": "application/json"}


def test_model_list_has_what_the_model_menu_needs(server: Server) -> None:
    answer = httpx.get(f"{server.base_url}/models", headers=HEADERS).json()

    assert answer["object"] == "list"
    assert [(model["id"], model["object"]) for model in answer["data"]] == [("gemma", "model")]


def test_chat_with_an_uploaded_picture_streams_and_tells_the_usage(server: Server) -> None:
    url = media.data_url(media.encoded(media.picture(), "JPEG"), "image/jpeg")
    body = {
        "stream": True,
        "model": "gemma",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            },
        ],
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
        "temperature": 0.7,
        "seed": 42,
    }

    with httpx.stream("POST", f"{server.base_url}/chat/completions", headers=HEADERS, json=body, timeout=60) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]

    *chunks, done = lines
    documents = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert documents[0]["choices"][0]["delta"]["role"] == "assistant"
    assert documents[-1]["usage"]["prompt_tokens"] > 64


TITLE_PROMPT = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: Hello
ASSISTANT: Hi!
</chat_history>"""


def test_title_generation_is_a_plain_answer(server: Server) -> None:
    body = {
        "model": "gemma",
        "messages": [{"role": "user", "content": TITLE_PROMPT}],
        "stream": False,
        "max_completion_tokens": 16,
    }

    answer = httpx.post(f"{server.base_url}/chat/completions", headers=HEADERS, json=body, timeout=60)

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_turns_of_a_chat_alternate(server: Server) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello!"), ("user", "And now?")]
    body = {"model": "gemma", "messages": [{"role": r, "content": c} for r, c in turns], "max_tokens": 4}

    answer = httpx.post(f"{server.base_url}/chat/completions", headers=HEADERS, json=body, timeout=60)

    assert answer.status_code == 200
