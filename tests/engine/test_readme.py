"""Each command of the README does what the README says, against a stack that `make serve` started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


SHELL, PYTHON = blocks("sh"), blocks("python")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"


@dataclass(frozen=True)
class Made:
    """What `make serve` started: its ready line, its port, and a folder to work in, as the repository's own."""

    ready: str
    port: int
    folder: Path

    def run(self, command: list[str], cwd: Path | None = None) -> str:
        """Runs a command as written for port 8000 and returns what it prints."""
        here = [argument.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}") for argument in command]
        done = subprocess.run(
            here, cwd=cwd or self.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("readme")
    for name in (".venv", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    port = free_port()
    command = ["make", "serve", f"PORT={port}", f"ADMIN_PORT={free_port()}"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    assert process.stdout is not None
    try:
        ready = next((line for line in process.stdout if "curl" in line), "")
        assert ready, (folder / "serve.log").read_text()[-3000:]
        yield Made(ready, port, folder)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.close()
        process.wait(60)


def test_ready_line_can_be_pasted(made: Made) -> None:
    command = made.ready[made.ready.index("curl") :]

    assert json.loads(made.run(["bash", "-c", command]))["choices"]


CHATS = [block for block in SHELL if block.startswith("curl") and "/chat/" in block]


@pytest.fixture(scope="module")
def samples(made: Made) -> None:
    (block,) = [block for block in SHELL if "samples.py" in block]
    made.run(["bash", "-e", "-c", block])


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("block", CHATS, ids=["text", "picture", "clip"])
def test_first_request_gets_the_answer_that_the_readme_tells(made: Made, block: str) -> None:
    answer = json.loads(made.run(["bash", "-c", block]))["choices"][0]["message"]["content"]

    before = README[: README.index(block)].rpartition("```\n\n")[2]
    assert f'"{answer}"' in " ".join(before.split()), "it stands before the request"


@pytest.mark.usefixtures("samples")
def test_recording_becomes_text(made: Made) -> None:
    (block,) = [block for block in SHELL if "/audio/" in block]

    answer = json.loads(made.run(["bash", "-c", block]))

    assert answer["usage"]["input_token_details"]["audio_tokens"] > 0


def test_python_examples_run(made: Made) -> None:
    streamed, launched = PYTHON

    made.run([sys.executable, "-W", "error", "-c", streamed])
    printed = made.run([sys.executable, "-c", launched], cwd=ROOT)

    assert printed.strip() == "gemma"


def test_configuration_example_is_good_and_a_key_is_made(made: Made) -> None:
    (made.folder / "gateway.yaml").write_text(blocks("yaml")[0])
    (block,) = [block for block in SHELL if block.startswith("gemma-gateway keys")]

    printed = made.run(["bash", "-e", "-c", block])

    assert "sk-gemma-" in printed
    assert "sk-gemma-" not in (made.folder / "keys.yaml").read_text()


@pytest.mark.parametrize("block", [block.strip() for block in SHELL if block.startswith("make")])
def test_make_knows_the_commands(block: str) -> None:
    """`make serve` itself is what `made` runs; running `make test` here would run this."""
    done = subprocess.run([*block.split(), "-n"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
