"""Answers one request of each modality through the engine's own application, before it is called ready.

The first request of a kind compiles kernels, fills caches and meets whatever is wrong with the model or the
installation: better now than in front of a client.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import wave
from array import array
from base64 import b64encode
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import msgspec
from PIL import Image

from gateway.engine.readiness import Application, Message
from gateway.settings import Modality

log = logging.getLogger(__name__)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

#: Two tokens: one from the prefill, one from a decoding step.
TOKENS = 2

#: Of the sound, in Hz: what Gemma's feature extractors take.
SAMPLE_RATE = 16_000


class WarmUpError(Exception):
    """The engine did not answer a warm-up request. The message has the cause."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One warm-up request."""

    modality: Modality
    path: str
    document: dict[str, Any]


def probes(model: str, modalities: Collection[Modality], *, has_template: bool) -> Iterator[Probe]:
    """The requests to answer for a model that takes `modalities`.

    A base model without a chat template takes no messages, so no media either: it gets a plain completion.
    """
    options = {"model": model, "max_tokens": TOKENS, "temperature": 0}
    if not has_template:
        yield Probe(Modality.TEXT, COMPLETIONS, {**options, "prompt": "Hello"})
        return
    for modality, part in _parts():
        if modality in modalities:
            content = [*part, {"type": "text", "text": "Hello"}]
            yield Probe(modality, CHAT, {**options, "messages": [{"role": "user", "content": content}]})


def _parts() -> Iterator[tuple[Modality, list[dict[str, Any]]]]:
    image, audio = _data_url("image/png", picture()), _data_url("audio/wav", sound())
    yield Modality.TEXT, []
    yield Modality.IMAGE, [{"type": "image_url", "image_url": {"url": image}}]
    yield Modality.AUDIO, [{"type": "audio_url", "audio_url": {"url": audio}}]


def picture() -> bytes:
    """A small grey picture, as PNG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def sound() -> bytes:
    """Half a second of 440 Hz, as 16-bit mono WAV."""
    wave_form = (math.sin(2 * math.pi * 440 * i / SAMPLE_RATE) for i in range(SAMPLE_RATE // 2))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        writer.writeframes(array("h", (int(10_000 * sample) for sample in wave_form)).tobytes())
    return file.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


async def warm_up(application: Application, requests: Collection[Probe], api_key: str | None = None) -> None:
    """Sends the requests one after another. Raises WarmUpError at the first that is not answered with 200."""
    for probe in requests:
        start = monotonic()
        status, body = await post(application, probe, api_key)
        if status != 200:
            told = body[:2000].decode(errors="replace")
            raise WarmUpError(f"warm-up: the engine answered the {probe.modality} request with status {status}: {told}")
        log.info("warm-up: %s answered in %.1f s", probe.modality, monotonic() - start)


async def post(application: Application, probe: Probe, api_key: str | None = None) -> tuple[int, bytes]:
    """Sends a request to an ASGI application in this process; the status and the body of its answer."""
    exchange = _Exchange(msgspec.json.encode(probe.document))
    await application(_scope(probe.path, api_key), exchange.receive, exchange.send)
    return exchange.status, b"".join(exchange.body)


class _Exchange:
    def __init__(self, request: bytes) -> None:
        self.status = 0
        self.body: list[bytes] = []
        self._request: bytes | None = request

    async def receive(self) -> Message:
        if self._request is None:
            await asyncio.Event().wait()  # The client stays until it is answered.
        body, self._request = self._request, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body.append(message.get("body", b""))


def _scope(path: str, api_key: str | None) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    if api_key is not None:
        headers.append((b"authorization", f"Bearer {api_key}".encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("localhost", None),
        "state": {},
    }
