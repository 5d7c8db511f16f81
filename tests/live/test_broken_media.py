"""Broken, lying and hostile files through a gateway that runs as a process: each is answered, and nothing is left."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
import yaml
from PIL import Image

from gateway.settings import Modality
from tests import fake_engine
from tests.fake_engine import Received, completion, reply
from tests.live.test_process import free_port, until
from tests.media import broken
from tests.media.broken import Broken
from tests.media.samples import data_url
from tests.media.site import answer, serve

#: Requests at a time.
_AT_ONCE = 4

#: Seconds until an answer, with others in front of it. A file alone takes 2 at most, on two busy cores.
_SECONDS = 15

#: Bytes by which a process may have grown over hundreds of files: what allocators keep for one large picture or two.
_MARGIN = 48 << 20

_TOO_SLOW = "media.decode_seconds"


@dataclass(frozen=True)
class Level:
    """What a process holds: resident memory in bytes, and open descriptors."""

    resident: int
    descriptors: int


@dataclass(frozen=True)
class Gateway:
    """A running `gemma-gateway gateway` and its decoding processes; `files` is a web server for it to fetch from."""

    pid: int
    client: httpx.AsyncClient
    files: dict[str, Any]
    files_url: str

    async def ask(self, file: Broken, *, fetched: bool) -> httpx.Response:
        url = data_url(file.data, "application/octet-stream")
        if fetched:
            path = f"/{len(self.files)}"
            self.files[path] = answer(file.data)
            url = self.files_url + path
        field = f"{file.modality}_url"
        parts = [{"type": "text", "text": "?"}, {"type": field, field: {"url": url}}]
        return await self.client.post(
            "/v1/chat/completions", json={"model": "gemma", "messages": [{"role": "user", "content": parts}]}
        )

    def levels(self) -> dict[int, Level]:
        """Of the gateway and all of its descendants, by process id."""
        parents = dict(_processes())
        family = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return {pid: _level(pid) for pid in family}


def _processes() -> Iterator[tuple[int, int]]:
    """The id of every process and of its parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue


def _level(pid: int) -> Level:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Level(pages * os.sysconf("SC_PAGESIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir())))


@asynccontextmanager
async def running(folder: Path, decode_workers: int) -> AsyncIterator[Gateway]:
    """A gateway with so many workers that none is renewed within a test, which each is after 500 files."""
    files: dict[str, Any] = {}
    async with fake_engine.running() as engine, serve(files) as site:
        engine.behaviour = reading
        async with _process(folder / "gateway.yaml", engine.url, decode_workers) as (pid, client):
            yield Gateway(pid, client, files, f"http://127.0.0.1:{site.port}")


@asynccontextmanager
async def _process(config: Path, engine_url: str, decode_workers: int) -> AsyncIterator[tuple[int, httpx.AsyncClient]]:
    port, admin_port = free_port(), free_port()
    media = {"allowed_networks": ["127.0.0.0/8"], "cache_bytes": 0, "decode_workers": decode_workers}
    document = {
        "server": {"port": port, "admin_port": admin_port},
        "engines": {"default": {"url": engine_url, "probe_seconds": 0.1}},
        "models": {"gemma": {"modalities": ["text", "image", "audio", "video"]}},
        "media": media,
    }
    await asyncio.to_thread(config.write_text, yaml.safe_dump(document))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "gateway", "--config", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(f"http://127.0.0.1:{admin_port}/readyz", 200)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield child.pid, client
        assert child.returncode is None
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def reading(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answers as vLLM would: with a refusal that names no part, where a medium in the request cannot be read."""
    try:
        for part in request.json()["messages"][0]["content"][1:]:
            _read(part["type"], part[part["type"]]["url"])
    except Exception as fault:  # noqa: BLE001 - whatever libraries make of a broken file
        body = {"error": {"message": f"Failed to load: {fault}", "type": "BadRequestError", "param": None, "code": 400}}
        await reply(json.dumps(body).encode(), status=400)(request, writer)
        return
    await completion()(request, writer)


def _read(kind: str, url: str) -> None:
    for data in map(base64.b64decode, url.partition(",")[2].split(",")):
        if kind == "audio_url":
            assert len(soundfile.read(io.BytesIO(data))[0])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Image.open(io.BytesIO(data)).convert("RGB")


async def send_all(gateway: Gateway, files: Iterable[Broken]) -> list[str]:
    """Sends some at a time, every other one as a URL to fetch; what is wrong with the answers."""
    numbered = enumerate(files)

    async def send_some() -> list[str]:
        return [fault for number, file in numbered if (fault := await _fault(gateway, file, number))]

    return list(itertools.chain(*await asyncio.gather(*[send_some() for _ in range(_AT_ONCE)])))


async def _fault(gateway: Gateway, file: Broken, number: int) -> str | None:
    """What is wrong with the answer for one file."""
    started = time.monotonic()
    response = await gateway.ask(file, fetched=number % 2 == 1)
    seconds = time.monotonic() - started
    right = response.status_code in file.expected.value and seconds < _SECONDS
    if right and (response.status_code == 200 or _is_clean(response, f"{file.modality}_url")):
        return None
    return f"{file.name} ({file.modality}): {response.status_code} in {seconds:.1f} s, {response.text[:200]}"


def _is_clean(response: httpx.Response, field: str) -> bool:
    """Whether this is OpenAI's error body, for our own reasons, and names the part."""
    error = response.json()["error"]
    param = f"messages[0].content[1].{field}.url"
    return (
        set(error) == {"message", "type", "param", "code"}
        and error["type"] == "invalid_request_error"
        and error["code"] in ("invalid_media", "media_too_large", "silent_media")
        and error["param"] == param
        and error["message"].startswith(f"{param}: ")
        and _TOO_SLOW not in error["message"]
    )


def samples() -> list[Broken]:
    """Every format as it should be, and the largest of what is read, to bring memory to its level."""
    kinds = ((Modality.IMAGE, broken.images()), (Modality.AUDIO, broken.audio()), (Modality.VIDEO, broken.videos()))
    whole = [Broken(name, kind, data, broken.Expected.READ) for kind, some in kinds for name, data in some.items()]
    return whole + [file for file in broken.corpus() if file.name == "PNG of nine million pixels"] * 6


async def check(gateway: Gateway, files: Sequence[Broken]) -> None:
    """Sends all files twice: no answer may be wrong, and the second time may take nothing that the first did not."""
    assert await send_all(gateway, samples()) == []
    before = gateway.levels()
    assert await send_all(gateway, files) == []
    between = gateway.levels()
    assert await send_all(gateway, files) == []
    after = gateway.levels()

    assert before.keys() == between.keys() == after.keys(), "a process died"
    grown = {pid: after[pid].resident - before[pid].resident for pid in before}
    opened = {pid: after[pid].descriptors - between[pid].descriptors for pid in before}
    assert max(grown.values()) < _MARGIN, f"bytes more than at first, by process: {grown}"
    assert max(opened.values()) <= 2 * _AT_ONCE, f"descriptors more than after the first time, by process: {opened}"


@pytest.mark.slow
async def test_broken_files_are_refused_by_name_and_leave_neither_memory_nor_processes(tmp_path: Path) -> None:
    async with running(tmp_path, decode_workers=3) as gateway:
        await check(gateway, list(itertools.islice(broken.corpus(), 0, None, 3)))


@pytest.mark.extended
@pytest.mark.timeout(600)
async def test_every_broken_file_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, decode_workers=9) as gateway:
        await check(gateway, list(broken.corpus()))
