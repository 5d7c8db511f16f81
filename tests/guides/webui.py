"""A running Open WebUI, from an environment of its own, and a browser that uses it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

#: Where `make test-all` installs Open WebUI, which is no dependency of ours.
COMMAND = Path(__file__).parent.parent.parent / ".cache" / "open-webui" / "bin" / "open-webui"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

#: Seconds that the first start may take: it creates a database.
START_SECONDS = 240

#: The variables that the guide names, but for those with the gateway's address.
SETTINGS = {
    "WEBUI_AUTH": "False",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_OLLAMA_API": "False",
    "RAG_EMBEDDING_ENGINE": "openai",
    "OPENAI_API_KEY": "any",
    "DEFAULT_MODEL_METADATA": '{"capabilities": {"builtin_tools": false}}',
    "ENABLE_FORWARD_USER_INFO_HEADERS": "True",
    "FORWARD_SESSION_INFO_HEADER_CHAT_ID": "x-session-id",
    "AUDIO_STT_ENGINE": "openai",
    "AUDIO_STT_OPENAI_API_KEY": "any",
    "AUDIO_STT_MODEL": "gemma",
}


@asynccontextmanager
async def open_webui(gateway: str, folder: Path, port: int) -> AsyncIterator[str]:
    """Starts Open WebUI with its data in `folder`, before the gateway of that URL; its own URL, once it answers."""
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
        **SETTINGS,
        "DATA_DIR": str(folder),
        "OPENAI_API_BASE_URL": f"{gateway}/v1",
        "AUDIO_STT_OPENAI_API_BASE_URL": f"{gateway}/v1",
        "WEBUI_SECRET_KEY": "of this test",
    }
    arguments = ["serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "open-webui.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            COMMAND, *arguments, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await _answering(f"http://127.0.0.1:{port}/health", process, folder / "open-webui.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _answering(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, log.read_text(errors="replace")[-3000:]
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.5)


@asynccontextmanager
async def browser_page(playwright: Any, url: str) -> AsyncIterator[Any]:
    """A page of a headless Chromium that knows no host but this one."""
    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        try:
            page = await browser.new_page(viewport={"width": 1200, "height": 800})
            page.set_default_timeout(60_000)
            await page.goto(url)
            yield page
        finally:
            await browser.close()
