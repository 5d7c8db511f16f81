"""A soak drives a real gateway, and fails when it should."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadtest.soak import Place, main
from loadtest.soak_watch import IN_FLIGHT, MIB, Bounds, Sample, judge, sample

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
BOUNDS = Bounds(growth_mib=8, growth_fds=32, failed_percent=1)
NOTHING = dict.fromkeys(IN_FLIGHT, 0.0)


HOLD = """
import json, sys
from loadtest.soak import own_gateway
with own_gateway() as place:
    print(json.dumps([place.url, place.admin, place.key]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The gateway that a soak starts when it is given none, with its key."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, admin, key = json.loads(process.stdout.readline())
        yield Place(url, admin, key)
        process.communicate(timeout=30)


def soak(place: Place, key: str, folder: Path, *options: str) -> tuple[Result, dict[str, Any]]:
    """Runs it for a second and a half; its result, and the JSON that it wrote."""
    (folder / "key").write_text(key)
    where = ["--url", place.url, "--admin", place.admin, "--key-file", str(folder / "key")]
    words = ["--minutes", "0.025", "--every", "0.3", "--json", str(folder / "out.json"), *options]
    result = CliRunner().invoke(main, [*where, *words])
    return result, json.loads((folder / "out.json").read_text())


def test_gateway_that_is_well_passes_and_nothing_is_left_in_flight(place: Place, tmp_path: Path) -> None:
    result, told = soak(place, place.key or "", tmp_path, "--aborts", "0.5", "--growth-mib", "500")

    after = told["samples"][-1]
    assert (result.exit_code, told["verdict"]["faults"]) == (0, []), result.output
    assert after["in_flight"] == NOTHING
    assert after["sent"] == after["complete"] + after["aborted"] + after["failed"]
    assert (after["complete"] > 0, after["aborted"] > 0, after["failed"]) == (True, True, 0)
    assert result.output.count(" MiB  fds ") >= 3
    assert (place.key or "") not in result.output + (tmp_path / "out.json").read_text()


def test_requests_that_are_refused_fail_the_soak(place: Place, tmp_path: Path) -> None:
    result, told = soak(place, "sk-wrong", tmp_path, "--aborts", "0")

    after = told["samples"][-1]
    assert (result.exit_code, after["complete"], after["failed"]) == (1, 0, after["sent"])
    assert "failed: 401 (" in result.output
    assert "no request was completed" in result.output


def test_memory_beyond_the_bound_fails_the_soak(place: Place, tmp_path: Path) -> None:
    result, _ = soak(place, place.key or "", tmp_path, "--growth-mib", "-1000")

    assert result.exit_code == 1
    assert "memory grew by" in result.output


def test_plot_is_a_png(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra loadtest is not installed")

    soak(place, place.key or "", tmp_path, "--plot", str(tmp_path / "out.png"))

    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_gateway_of_another_needs_its_admin_address_too() -> None:
    result = CliRunner().invoke(main, ["--url", "http://127.0.0.1:1"])

    assert (result.exit_code, "--url and --admin go together" in result.output) == (2, True)


def test_gateway_that_is_not_there_is_an_error_that_names_it() -> None:
    result = CliRunner().invoke(main, ["--url", "http://127.0.0.1:1", "--admin", "http://127.0.0.1:1"])

    assert (result.exit_code, "http://127.0.0.1:1/metrics cannot be read" in result.output) == (1, True)


def samples(mib: list[float], fds: list[float] | None = None) -> list[Sample]:
    """Ten seconds apart."""
    files = fds or [40.0] * len(mib)
    return [
        Sample(10.0 * number, size * MIB, files[number], NOTHING, sent=100, complete=100)
        for number, size in enumerate(mib)
    ]


def after(**more: Any) -> Sample:
    """Once it is over."""
    return replace(Sample(99.0, MIB, 40.0, NOTHING, sent=200), **more)


RAMP = [100.0 + 5 * number for number in range(9)]
FLAT = [100.0] * 9


@pytest.mark.parametrize(
    ("seen", "last", "faults"),
    [
        (samples(FLAT), after(complete=200), ()),
        (samples([*RAMP[:5], *[120.0] * 5]), after(complete=200), ()),
        (samples(RAMP), after(complete=200), ("memory grew by 20.0 MiB in the second half",)),
        (samples(FLAT, RAMP), after(complete=200), ()),
        (
            samples(FLAT, [10.0 * n for n in range(9)]),
            after(complete=200),
            ("open files grew by 40 in the second half",),
        ),
        (
            samples(FLAT),
            after(complete=200, in_flight={**NOTHING, IN_FLIGHT[0]: 2.0}),
            (f"left in flight: {{'{IN_FLIGHT[0]}': 2.0}}",),
        ),
        (samples(FLAT), after(complete=197, failed=3), ("3 of 200 requests failed",)),
        (samples(FLAT), after(aborted=200), ("no request was completed",)),
        (samples([100.0]), after(complete=200), ()),
    ],
)
def test_verdict_is_of_the_second_half_and_of_what_is_left(
    seen: list[Sample], last: Sample, faults: tuple[str, ...]
) -> None:
    assert judge(seen, last, BOUNDS).faults == faults


def test_metric_that_is_absent_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="process_resident_memory_bytes"):
        sample(0.0, "# TYPE process_open_fds gauge\nprocess_open_fds 3.0\n")
