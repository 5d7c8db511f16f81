"""The gateway's image by its own steps, without Docker: its size, what is in it, and that it serves with no rights."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from gateway.access import key_edits
from tests import fake_engine
from tests.deploy import rehearsal
from tests.deploy.rehearsal import Build
from tests.deploy.test_dockerfile import ROOT, STAGES
from tests.fake_engine import FakeEngine
from tests.live.conftest import MESSAGES
from tests.live.test_process import free_port

#: Bytes unpacked, Debian and Python included.
LIMIT = 350_000_000

#: Tools to build with, which whoever breaks in would be glad of.
BUILDERS = ("gcc", "cc", "ld", "as", "make", "pip", "pip3", "git", "curl", "wget")

STAGE = STAGES["gateway"]
CHECK = STAGE.last("HEALTHCHECK").text.partition("CMD ")[2]

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files. Debian and all packages are fetched, which takes minutes."""
    reason = rehearsal.unable()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    base = folder / "debian"
    rehearsal.debian(base, "bookworm")
    return Build(STAGES, ROOT, folder, base).stage("gateway")


def run(image: Path, *command: str) -> str:
    """What a command prints, in the image and as its user."""
    words = rehearsal.inside(image, "10001", command)
    told = subprocess.run(words, env=dict(STAGE.environment), capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def test_it_is_small(image: Path) -> None:
    assert rehearsal.bytes_of(image) < LIMIT


def test_there_is_nothing_left_to_build_with(image: Path) -> None:
    folders = ("opt/gateway/bin", "usr/local/bin", "usr/bin", "bin")
    assert [name for name in BUILDERS for folder in folders if (image / folder / name).exists()] == []


def test_neither_torch_nor_what_tests_need_is_in_it(image: Path) -> None:
    packages = {path.name for path in image.glob("opt/gateway/lib/python3.*/site-packages/*")}
    assert packages & {"torch", "vllm", "transformers", "librosa", "scipy", "numba", "pytest", "pip"} == set()


def test_its_parts_can_be_listed(image: Path) -> None:
    """By what tools that write bills of materials read: records of packages."""
    assert (image / "var/lib/dpkg/status").is_file()
    found = {path.name.rpartition("-")[0] for path in image.glob("opt/gateway/lib/python3.*/site-packages/*.dist-info")}
    assert any(name.startswith("gemma_gateway") for name in found)
    assert len(found) > 50


def test_its_user_cannot_change_it(image: Path) -> None:
    writable = subprocess.run(
        rehearsal.inside(image, "10001", ["find", "/opt", "/usr", "/etc", "/bin", "-writable", "!", "-type", "l"]),
        capture_output=True,
        text=True,
    )
    assert writable.stdout == ""


def test_what_was_taken_out_is_not_missed(image: Path) -> None:
    imports = "import av, blake3, cryptography, lightkube, numpy, opentelemetry.sdk, PIL.Image, soundfile, soxr, uvloop"
    language = "from gateway.api.languages import english_name; print(english_name('pt-BR', 'language'))"
    assert run(image, "python", "-c", f"{imports}; {language}") == "Brazilian Portuguese"


def test_its_version_is_the_projects(image: Path) -> None:
    version = STAGE.last("LABEL").pairs()["org.opencontainers.image.version"]
    assert run(image, "gemma-gateway", "--version") == f"gemma-gateway, version {version}"


@dataclass(frozen=True)
class Serving:
    """The image's gateway as it serves, and a key for it."""

    url: str
    admin_port: int
    key: str
    engine: FakeEngine
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its number out here; inside it is 1, as in any container."""
        return rehearsal.children(self.process.pid)[0]

    def said(self) -> str:
        return self.log.read_text()


@asynccontextmanager
async def serving(image: Path, folder: Path, user: str) -> AsyncIterator[Serving]:
    port, admin_port = free_port(), free_port()
    async with fake_engine.running() as engine:
        (folder / "config").mkdir()
        key = key_edits.create(folder / "config" / "keys.yaml", "alice")
        (folder / "config" / "keys.yaml").chmod(0o644)
        document = {
            "server": {"port": port, "admin_port": admin_port, "drain_seconds": 5},
            "auth": {"keys_file": "/etc/gemma-gateway/keys.yaml"},
            "engines": {"default": {"url": engine.url}},
            "models": {"gemma": {"served_name": "gemma"}},
        }
        (folder / "config" / "config.yaml").write_text(yaml.safe_dump(document))
        log = folder / "gateway.log"
        mounts = {folder / "config": "/etc/gemma-gateway"}
        with rehearsal.running(image, STAGE, user, mounts, log) as process:
            found = Serving(f"http://127.0.0.1:{port}", admin_port, key, engine, process, log)
            async with asyncio.timeout(30):
                while not await answers(f"http://127.0.0.1:{admin_port}/readyz"):
                    assert process.poll() is None, found.said()
                    await asyncio.sleep(0.1)
            yield found


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


def healthy(image: Path, admin_port: int) -> bool:
    """What the image's own check says, run as Docker runs it."""
    environment = {**STAGE.environment, "GEMMA_GATEWAY_SERVER__ADMIN_PORT": str(admin_port)}
    words = rehearsal.inside(image, "10001", json.loads(CHECK))
    return subprocess.run(words, env=environment, capture_output=True).returncode == 0


@pytest.mark.parametrize("user", ["10001", "1234567"])
async def test_it_serves_as_any_user_with_a_root_that_is_read_only(image: Path, tmp_path: Path, user: str) -> None:
    async with serving(image, tmp_path, user) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        assert await answers(f"http://127.0.0.1:{gateway.admin_port}/livez")
        body = {"model": "gemma", "messages": MESSAGES}
        granted = {"authorization": f"Bearer {gateway.key}"}
        answer = await client.post("/v1/chat/completions", json=body, headers=granted)
        refused = await client.post("/v1/chat/completions", json=body)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines())
    assert (answer.status_code, refused.status_code) == (200, 401)
    assert answer.json()["choices"][0]["message"]["content"]
    assert len(gateway.engine.requests) == 1
    assert status["Uid"].split() == [user] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")


async def test_it_decodes_a_picture_where_it_can_write_to_nothing_but_memory(image: Path, tmp_path: Path) -> None:
    async with serving(image, tmp_path, "10001") as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        part = {"type": "image_url", "image_url": {"url": photo(), "detail": "low"}}
        body = {"model": "gemma", "messages": [{"role": "user", "content": [part]}]}
        answer = await client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {gateway.key}"}, timeout=30
        )
    assert answer.status_code == 200, answer.text


def photo() -> str:
    """A JPEG of more pixels than the budget lets through, so that it is made anew."""
    written = BytesIO()
    Image.effect_noise((2400, 1800), 40).convert("RGB").save(written, "JPEG")
    return "data:image/jpeg;base64," + b64encode(written.getvalue()).decode()


async def test_its_health_check_tells_whether_it_lives(image: Path, tmp_path: Path) -> None:
    async with serving(image, tmp_path, "10001") as gateway:
        assert healthy(image, gateway.admin_port)
    assert not healthy(image, gateway.admin_port)


async def test_sigterm_ends_it_with_success(image: Path, tmp_path: Path) -> None:
    async with serving(image, tmp_path, "10001") as gateway:
        os.kill(gateway.pid, signal.SIGTERM)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0, gateway.said()
