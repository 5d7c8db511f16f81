"""The real Open WebUI before a gateway, in a browser: it lists the model, streams an answer and sends a picture."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from tests import fake_engine
from tests.engine import media
from tests.fake_engine import FakeEngine, Received, begin, event, reply, send, streamed
from tests.guides import webui
from tests.guides.conftest import Desk
from tests.serving import serving

playwright = pytest.importorskip("playwright.async_api", reason="not installed:  make .cache/open-webui/installed")

pytestmark = [
    pytest.mark.extended,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not webui.COMMAND.exists(), reason="not installed:  make .cache/open-webui/installed"),
    pytest.mark.skipif(webui.CHROMIUM is None, reason="no chromium:  apt-get install chromium"),
]

#: Where pictures of the pages go; nowhere unless it is told.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
#: Seconds after which a page looks as it stays: suggestions and titles have come.
SETTLED = 3


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config(folder: Path, engine: FakeEngine) -> Path:
    file = folder / "gateway.yaml"
    document = {
        "engines": {"default": {"url": engine.url}},
        "models": {"gemma": {"served_name": "served", "modalities": ["text", "image", "audio"]}},
    }
    file.write_text(yaml.safe_dump(document))
    return file


def words(request: Received) -> list[str]:
    """What the engine says: what it got."""
    kinds = {b'"image_url"': "picture.", b'"input_audio"': "sound.", b'"audio_url"': "sound.", b"": "text."}
    return ["I ", "got ", "a ", next(kind for mark, kind in kinds.items() if mark in request.body)]


async def talk(request: Received, writer: asyncio.StreamWriter) -> None:
    """A word at a time where a stream is wanted, for ever if told so; else one answer, for Open WebUI's titles."""
    if not streamed(request):
        answer = {"id": "1", "object": "chat.completion", "model": "served", "usage": fake_engine.USAGE}
        body = fake_engine.compact({**answer, "choices": [fake_engine.choice("A title")]})
        await reply(body)(request, writer)
        return
    await begin(writer)
    while b"for ever" in request.body:
        await send(writer, event("again ", "served"))
        await asyncio.sleep(0.05)
    for word in words(request):
        await send(writer, event(word, "served"))
        await asyncio.sleep(0.05)
    await send(writer, b"data: [DONE]\n\n")
    await send(writer, b"")


@asynccontextmanager
async def overheard(url: str) -> AsyncIterator[tuple[str, bytearray]]:
    """An address that leads to that of `url`, and all that is said to it."""
    said = bytearray()
    target = httpx.URL(url)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray | None) -> None:
        try:
            while data := await reader.read(65536):
                if keep is not None:
                    keep += data
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, onward = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(pass_on(reader, onward, said), pass_on(answers, writer, None), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", said
    finally:
        server.close()


async def say(page: Any, text: str) -> None:
    await page.locator("#chat-input").click()
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


async def shot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


async def spoken(address: str, folder: Path) -> str:
    """What Open WebUI makes of a recording, as its microphone button sends it."""
    (folder / "said.wav").write_bytes(media.wav(media.sound(1.0), subtype="PCM_16"))
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", timeout=60) as client:
        signed_in = await client.post("/auths/signin", json={"email": "", "password": ""})
        headers = {"authorization": f"Bearer {signed_in.json()['token']}"}
        sound = {"file": ("said.wav", (folder / "said.wav").read_bytes(), "audio/wav")}
        answer = await client.post("/audio/transcriptions", files=sound, headers=headers)
    return str(answer.json()["text"])


async def choose_model(page: Any) -> None:
    """Opens the menu of models and takes the only one."""
    # What is new in this version lies over the page, sooner or later.
    news = page.get_by_role("button", name="Okay, Let's Go!")
    await page.add_locator_handler(news, lambda _: news.click())
    await page.locator("#chat-input").wait_for()
    await page.locator("button[id^=model-selector]").click()
    choice = page.get_by_role("option", name="gemma")
    await choice.wait_for()
    await shot(page, "open-webui-models")
    await choice.click()


async def test_text_pictures_and_speech_of_open_webui_are_answered(tmp_path: Path, port: int) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    async with fake_engine.running() as engine:
        engine.behaviour = talk
        async with (
            serving(config(tmp_path, engine)) as (_, url),
            overheard(url) as (ear, said),
            webui.open_webui(ear, tmp_path, port) as address,
            webui.browser_page(playwright, address) as page,
        ):
            await choose_model(page)
            await say(page, "Hello!")
            await page.get_by_text("I got a text.").wait_for()
            await page.locator("input[type=file]").first.set_input_files(tmp_path / "red.png")
            await say(page, "What is this?")
            await page.get_by_text("I got a picture.").wait_for()
            heard = await spoken(address, tmp_path)
            await say(page, "Talk for ever!")
            await page.get_by_text("again again again").wait_for()
            await page.get_by_role("button", name="Stop", exact=True).click()
            async with asyncio.timeout(10):
                while engine.running:
                    await asyncio.sleep(0.05)
        pictured = next(request.json() for request in engine.requests if b'"image_url"' in request.body)

    assert "tools" not in pictured
    (part,) = [part for part in pictured["messages"][-1]["content"] if part["type"] == "image_url"]
    head, data = part["image_url"]["url"].split(",", 1)
    assert head.startswith("data:image/")
    assert len(base64.b64decode(data)) > 50
    assert heard == "I got a sound."
    chats = set(re.findall(rb"(?i)\r\nx-session-id: (\S+)", said))
    assert len(chats) == 1, "all requests of a chat go to the replica that has its beginning"


@pytest.mark.engine
async def test_the_small_model_tells_what_an_uploaded_picture_shows(desk: Desk, tmp_path: Path, port: int) -> None:
    async with (
        webui.open_webui(desk.server.url, tmp_path, port) as address,
        webui.browser_page(playwright, address) as page,
    ):
        await choose_model(page)
        await page.locator("input[type=file]").first.set_input_files(desk.folder / "samples" / "circle.png")
        await say(page, "What is in this picture?")
        await page.get_by_text("A red circle.").wait_for()
        await asyncio.sleep(SETTLED)
        await shot(page, "open-webui-chat")
