"""The engine chart's profiles: the arithmetic in their comments is right, and what follows from it is set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.engine.gemmas import SHAPES, Preset
from gateway.engine.gpus import GpuMemory, bytes_per_gpu, tensor_parallel_size, valid_sizes
from gateway.engine.presets import recognise
from tests.helm import profiles
from tests.helm.profiles import FOLDER, MACHINES

FILES = sorted(FOLDER.glob("values-*.yaml"))
GIB = 2**30


class Profile:
    """A profile as a reader sees it: its values, and the numbers of its comment."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.values: dict[str, Any] = yaml.safe_load(self.text)
        self.preset: Preset = recognise(self.values["model"])
        self.size: int = self.values["parallelism"]["tensor"]
        self.context: int = self.values["args"]["max-model-len"]
        self.step: int = self.values["args"]["max-num-batched-tokens"]
        self.mib = int(self._find(r"(\d+) MiB"))

    def __getitem__(self, row: str) -> float:
        """GiB, or a number, of one row."""
        return float(self._find(rf"^#   {re.escape(row)} +([\d.]+)  "))

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found, pattern
        return found[1]


@pytest.fixture(params=FILES, ids=lambda path: path.stem, scope="module")
def profile(request: pytest.FixtureRequest) -> Profile:
    return Profile(request.param)


def test_every_gemma_has_a_profile_for_every_machine() -> None:
    assert {path.name for path in FILES} == {
        f"values-{name.lower()}-{slug}.yaml" for name in SHAPES for slug in MACHINES
    }


def test_profiles_are_as_they_are_written() -> None:
    assert {path.name: path.read_text() for path in FILES} == {
        name: profiles.text(plan) for name, plan in profiles.plans()
    }


def test_documentation_has_the_table_of_the_profiles() -> None:
    assert profiles.TABLE.findall(profiles.DOCUMENTATION.read_text()) == [profiles.table()]


def test_arithmetic_of_the_comment_is_right(profile: Profile) -> None:
    shape, size = profile.preset.shape, profile.size
    weights = shape.parameters_b * 1e9 * 2 / size / GIB
    taken = profile.mib / 1024 * 0.9
    # Keys and values of 2 bytes each; a head goes to one GPU, or to all of them.
    full, sliding = (
        layers.count * layers.head_dim * 2 * 2 * max(layers.heads / size, 1) for layers in (shape.full, shape.sliding)
    )
    sequence = (full * profile.context + sliding * (shape.window + profile.step)) / GIB
    left = taken - weights - 3
    assert profile["memory"] == pytest.approx(profile.mib / 1024, abs=0.006)
    assert profile["taken by vLLM"] == pytest.approx(taken, abs=0.006)
    assert profile["weights"] == pytest.approx(weights, abs=0.006)
    assert profile["left for keys and values"] == pytest.approx(left, abs=0.006)
    assert profile["one full sequence"] == pytest.approx(sequence, abs=0.006)
    assert profile["such sequences at once"] == pytest.approx(left / sequence, rel=0.01)


def test_model_fits_with_one_full_sequence(profile: Profile) -> None:
    assert profile.size in valid_sizes(profile.preset)
    assert profile["such sequences at once"] >= 1


def test_engine_agrees_that_it_fits(profile: Profile) -> None:
    assert bytes_per_gpu(profile.preset, profile.size) <= profile.mib * 2**20 * 0.9
    assert tensor_parallel_size(profile.preset, [GpuMemory(profile.mib * 2**20)] * 8) <= profile.size


def test_context_is_one_that_the_model_was_made_for(profile: Profile) -> None:
    assert profile.context <= profile.preset.shape.context


def test_whole_node_is_used_up(profile: Profile) -> None:
    if "replicas" in profile.values:
        assert profile.values["replicas"] * profile.size == 8


def test_cache_holds_two_revisions(profile: Profile) -> None:
    size = int(profile.values["cache"]["size"].removesuffix("Gi"))
    assert size * GIB > 2 * profile.preset.weight_bytes
