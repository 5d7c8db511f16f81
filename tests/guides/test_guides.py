"""The guides and the client examples do what they say, against a stack with the small trained Gemma: what a guide's
programs print is what the guide shows.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.guides.conftest import Desk
from tests.guides.pages import CLIENTS, GUIDES, blocks, program

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

#: Where `make test` installs the clients that are no dependencies of ours.
INSTALLED = Path(__file__).parent.parent.parent / ".cache" / "clients"
NODE, NODE_MODULES = INSTALLED / "bin" / "node", INSTALLED / "node_modules"


def test_image_understanding(desk: Desk) -> None:
    printed = desk.run([sys.executable, "-W", "error", "-c", program("image-understanding")])

    assert printed == shown("image-understanding")
    for figure in ("boxes.png", "budgets.png"):
        drawn, in_guide = picture(desk.folder / figure), picture(GUIDES / "images" / figure)
        assert drawn.tobytes() == in_guide.tobytes(), f"{figure} is the one in the guide"


def shown(guide: str) -> str:
    """What the guide says that its programs print."""
    return "".join(blocks(guide, "text"))


def picture(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def test_gemma_3n(desk: Desk) -> None:
    printed = desk.run([sys.executable, "-W", "error", "-c", program("gemma-3n")])

    assert without_speeds(printed) == without_speeds(shown("gemma-3n"))
    speeds = re.findall(r": ([0-9.]+) tokens per second$", printed, re.MULTILINE)
    assert len(speeds) == 3
    assert all(float(speed) > 0 for speed in speeds)


def without_speeds(text: str) -> str:
    """With a word in place of each number that differs from run to run."""
    return re.sub(r"\d+\.\d+", "NUMBER", text)


@pytest.mark.parametrize("block", blocks("clients", "sh"), ids=["models", "stream", "speech"])
def test_curl(desk: Desk, block: str) -> None:
    printed = desk.run(["bash", "-e", "-c", block])

    assert re.search(r'"id":"gemma"|"usage":\{|"text":', printed)


def test_structured_output_and_tools(desk: Desk) -> None:
    printed = desk.run([sys.executable, "-W", "error", "-c", program("clients")])

    shape, call, finish = printed.splitlines()
    assert re.fullmatch(r"kind='(circle|square|triangle)' colour='(red|green|blue)'", shape)
    assert re.fullmatch(r'weather \{"city": ?"(Oslo|Rome)"\}', call)
    assert finish in ("stop", "length", "tool_calls")


def test_httpx_alone(desk: Desk) -> None:
    printed = desk.run([sys.executable, str(CLIENTS / "plain_httpx.py")])

    assert re.search(r"^\d+ tokens\n400 ", printed, re.MULTILINE)


def test_openai_sdk_for_javascript(desk: Desk) -> None:
    if not (NODE_MODULES / "openai").exists():
        pytest.skip("npm has not installed the SDK:  make .cache/clients/installed")
    shutil.copy(CLIENTS / "sdk.mjs", desk.folder)
    (desk.folder / "node_modules").symlink_to(NODE_MODULES)

    printed = desk.run([str(NODE), "sdk.mjs", "samples/shapes.png"])

    assert "image_tokens: 65" in printed
    assert re.search(r"^weather \{ city: '(Oslo|Rome)' \}$", printed, re.MULTILINE)


@pytest.mark.skipif(not INSTALLED.exists(), reason="not installed:  make .cache/clients/installed")
@pytest.mark.parametrize("client", ["langchain", "llama_index"])
def test_library(desk: Desk, client: str) -> None:
    printed = desk.run([str(INSTALLED / "bin" / "python"), str(CLIENTS / f"{client}_chat.py")])

    assert "name='Vera' age=30 city='Oslo'" in printed
    assert re.search(r"(input|prompt)_tokens'?[:=] ?18,", printed.splitlines()[0])
