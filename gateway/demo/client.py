"""Answers lessons through an OpenAI address: the running stack, as any client sees it."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import soundfile

from gateway.demo.lessons.lesson import Lesson, Part
from gateway.demo.lessons.talking import call
from gateway.demo.lessons.tones import RATE

LONGEST_ANSWER = 160
PATIENCE = 120.0
"""Seconds to wait for an answer."""


class Client:
    """A model behind an OpenAI base URL, such as http://127.0.0.1:8000/v1."""

    def __init__(self, url: str, model: str, key: str = "") -> None:
        self.address, self.model = urlsplit(url), model
        self.headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def answer(self, lesson: Lesson, budget: int, quarter: bool) -> str:
        """The greedy answer; a tool call in the model's own notation."""
        if quarter:
            raise ValueError("a quarter of the least budget cannot be asked for: leave out --quick")
        return said(self.choice(lesson, budget)["message"])

    def choice(self, lesson: Lesson, budget: int, **more: Any) -> dict[str, Any]:
        """The first choice of the completion. Raises OSError if the answer is not 200."""
        body = {
            "model": self.model,
            "messages": messages(lesson),
            "temperature": 0,
            "max_tokens": LONGEST_ANSWER,
            **({"tools": list(lesson.tools)} if lesson.tools else {}),
            **({"mm_processor_kwargs": {"max_soft_tokens": budget}} if lesson.pictures else {}),
            **more,
        }
        choice: dict[str, Any] = self._post(body)["choices"][0]
        return choice

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        secure = self.address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self.address.hostname or "", self.address.port, timeout=PATIENCE)
        try:
            path = f"{self.address.path.rstrip('/')}/chat/completions"
            connection.request("POST", path, json.dumps(body).encode(), self.headers)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise OSError(f"{reply.status} {content[:500].decode(errors='replace')}")
        made: dict[str, Any] = json.loads(content)
        return made


def messages(lesson: Lesson) -> list[dict[str, Any]]:
    """The lesson's messages as OpenAI's API takes them, media as data URLs."""
    urls = {
        "image": iter([_image(picture) for picture in lesson.pictures]),
        "audio": iter([_audio(clip) for clip in lesson.clips]),
    }
    return [{**message, **_content(message, urls), **_calls(message)} for message in lesson.messages]


def said(message: Mapping[str, Any]) -> str:
    """What a message of the API says, as the model wrote it."""
    calls = message.get("tool_calls") or ()
    made = (call(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls)
    return (message.get("content") or "") + "".join(made)


def _content(message: Mapping[str, Any], urls: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    if not isinstance(content, Sequence) or isinstance(content, str):
        return {}
    return {"content": [_part(part, urls) for part in content]}


def _part(part: Part, urls: Mapping[str, Any]) -> Part:
    kind = part["type"]
    return {"type": f"{kind}_url", f"{kind}_url": {"url": next(urls[kind])}} if kind in urls else part


def _calls(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    named = [
        {**one, "function": {**one["function"], "arguments": json.dumps(one["function"]["arguments"])}} for one in calls
    ]
    return {"tool_calls": named} if named else {}


def _image(picture: Any) -> str:
    file = io.BytesIO()
    picture.image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _audio(clip: Any) -> str:
    file = io.BytesIO()
    soundfile.write(file, clip.samples, RATE, "PCM_16", format="WAV")
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
