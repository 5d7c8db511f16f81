"""What the guides say can be checked without an engine."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml

from tests.guides.pages import CLIENTS, GUIDES, ROOT, blocks, text
from tests.guides.webui import SETTINGS

PAGES = sorted(page.stem for page in GUIDES.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text(page))
    assert [target for target in targets if not (GUIDES / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block, page, "exec")


def test_every_client_stands_in_the_guide() -> None:
    clients = {file.name for file in CLIENTS.iterdir() if file.is_file()} - {"samples.py"}
    assert {name for name in clients if f"examples/clients/{name}" not in text("clients")} == set()


@pytest.mark.parametrize("block", [block.strip() for block in blocks("gemma-3n", "sh")])
def test_make_knows_the_commands_of_the_gemma_3n_guide(block: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["bash", "-c", f"{block} -n"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "--served-model-name gemma" in done.stdout


def test_settings_of_open_webui_are_those_that_are_tested() -> None:
    exported = dict(re.findall(r"^export (\w+)='?(.*?)'?$", text("open-webui"), re.MULTILINE))
    assert {name: value for name, value in exported.items() if "BASE_URL" not in name}.items() <= SETTINGS.items()
    assert {name for name in SETTINGS if name not in text("open-webui") and not name.startswith("AUDIO_STT")} == set()
    assert all(value == "http://127.0.0.1:8000/v1" for name, value in exported.items() if "BASE_URL" in name)


def test_open_webui_in_a_container_gets_the_settings_that_are_tested() -> None:
    (compose,) = [yaml.safe_load(block) for block in blocks("open-webui", "yaml")]
    given = compose["services"]["open-webui"]["environment"]
    told = {name: value for name, value in given.items() if not name.startswith("OPENAI_API")}
    assert told.items() <= SETTINGS.items()
