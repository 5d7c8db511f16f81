"""The Dockerfile: what its images are allowed to do, and that what they hold is pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy import dockerfile
from tests.deploy.dockerfile import Stage

ROOT = Path(__file__).parents[2]
STAGES = dockerfile.read(ROOT / "Dockerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = ("gateway", "engine")

#: The extras that the gateway's image has.
EXTRAS = ("kubernetes", "tracing")


def tool(name: str) -> str:
    """A program that a package of the development extra brings."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        assert "CI" not in os.environ, f"{name} is missing"
        pytest.skip(f"{name} is not installed here")
    return found


def locked(name: str) -> Mapping[str, str]:
    """The versions in a lock file by name."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "deploy" / name).read_text(), re.M))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run([tool("hadolint"), "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("", 0)


def test_an_image_runs_as_nobody_in_particular(target: Stage) -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", target.last("USER").text)
    assert target.environment["HOME"] == "/tmp"  # noqa: S108


def test_an_image_is_stopped_by_sigterm_which_reaches_the_process_itself(target: Stage) -> None:
    assert target.last("STOPSIGNAL").text == "SIGTERM"
    assert target.last("ENTRYPOINT").words() == ["gemma-gateway"]


def test_an_image_looks_after_its_health(target: Stage) -> None:
    check = target.last("HEALTHCHECK").text
    assert ("/livez" if target.name == "gateway" else "/health") in check
    assert "--start-period=" in check


def test_an_image_tells_what_it_is() -> None:
    stages = dockerfile.read(
        ROOT / "Dockerfile", {"VERSION": "1.2.3", "REVISION": "abc", "SOURCE": "https://git.example"}
    )
    for name in TARGETS:
        labels = stages[name].last("LABEL").pairs()
        told = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
        assert (told["version"], told["revision"], told["source"]) == ("1.2.3", "abc", "https://git.example")
        assert told["licenses"] == PROJECT["license"]


def test_version_of_the_images_is_the_projects() -> None:
    assert {STAGES[name].last("LABEL").pairs()["org.opencontainers.image.version"] for name in TARGETS} == {
        PROJECT["version"]
    }


def test_what_images_stand_on_is_pinned_and_can_be_given_as_a_digest() -> None:
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert [base for base in bases if not re.search(r":v?\d+\.\d+", base)] == []
    digest = "docker.io/library/debian@sha256:" + "0" * 64
    assert dockerfile.read(ROOT / "Dockerfile", {"DEBIAN_IMAGE": digest})["gateway"].base == digest


def test_engine_stands_on_the_vllm_that_the_project_is_tested_with() -> None:
    (vllm,) = (Requirement(text) for text in PROJECT["optional-dependencies"]["gpu"] if text.startswith("vllm"))
    assert STAGES["engine"].base.endswith(f":v{str(vllm.specifier).removeprefix('==')}")


def test_tools_stay_in_the_stages_before() -> None:
    steps = " ".join(step.text for step in STAGES["gateway"].all("RUN"))
    assert re.findall(r"\b(pip|binutils|gcc|python3-venv|build-essential|curl|wget)\b", steps) == []


def test_lock_holds_what_the_gateway_needs_in_versions_that_it_takes() -> None:
    versions = {canonicalize_name(name): version for name, version in locked("requirements.txt").items()}
    optional = PROJECT["optional-dependencies"]
    wanted = map(Requirement, [*PROJECT["dependencies"], *(text for extra in EXTRAS for text in optional[extra])])
    unmet = [str(need) for need in wanted if versions.get(canonicalize_name(need.name), "") not in need.specifier]
    assert unmet == [], "run deploy/lock"


def test_lock_holds_neither_torch_nor_what_is_only_for_tests() -> None:
    assert locked("requirements.txt").keys() & {"torch", "vllm", "librosa", "scipy", "numba", "pytest"} == set()


def test_everything_in_a_lock_has_its_hash() -> None:
    for name in ("requirements.txt", "requirements-build.txt"):
        entries = re.split(r"^(?=\w)", (ROOT / "deploy" / name).read_text(), flags=re.M)[1:]
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_context_holds_what_the_steps_copy_and_nothing_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word
        for stage in STAGES.values()
        for copy in stage.all("COPY")
        if "from" not in copy.flags()
        for word in copy.words()[:-1]
    }
    assert "*" in lines
    assert copied == allowed
