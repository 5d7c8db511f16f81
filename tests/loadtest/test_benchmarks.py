"""The benchmarks run, shortly, and tell figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def benchmark(name: str, *options: str) -> str:
    command = [sys.executable, "-m", f"loadtest.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_cost_of_a_large_body_is_told() -> None:
    told = benchmark("large_body", "--megabytes", "0.5", "--rounds", "1", "--requests", "2")

    assert re.match(r"gateway +\d+\.\d\d ms", told)


def test_what_access_adds_to_the_bare_relay_is_told() -> None:
    told = benchmark("access", "--rounds", "1", "--requests", "64")

    assert re.match(
        r"bare relay .*µs.*\nopen gateway .*µs.*\nwhat is usual .*µs.*\neverything on .*µs.*\nadded .*µs", told
    )


def test_peer_that_does_not_start_is_an_error_that_names_it() -> None:
    with pytest.raises(AssertionError, match="did not start"):
        benchmark("large_body", "--rounds", "1", "--requests", "1", "--peer", "nobody=false {port} {engine}")


@pytest.mark.extended
def test_wait_of_text_beside_media_is_told() -> None:
    told = benchmark("decoding", "--seconds", "1", "--rounds", "1", "--senders", "1")

    assert re.search(r"alone +p50 .* p99 .*\nbeside +p50 .* p99 ", told)
