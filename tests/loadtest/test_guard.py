"""What a request and a chunk take in the gateway stays what it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.guard import VERSION, complaints, recorded

ROOT = Path(__file__).parent.parent.parent
BEFORE = {"request": {"calls": 500.0, "instructions": 8000.0}, "chunk": {"calls": 40.0, "instructions": 400.0}}


@pytest.mark.skipif(recorded() is None, reason=f"nothing is recorded for Python {VERSION}")
def test_request_and_chunk_take_no_more_work_than_was_recorded() -> None:
    command = [sys.executable, "-m", "loadtest.guard", "--rows", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_what_grew_within_the_margin_is_no_complaint() -> None:
    measured = {**BEFORE, "chunk": {"calls": 47.0, "instructions": 480.0}}

    assert complaints(measured, BEFORE) == []


def test_what_grew_beyond_the_margin_is_named_with_the_way_to_look_into_it() -> None:
    measured = {**BEFORE, "chunk": {"calls": 50.0, "instructions": 400.0}}

    (complaint,) = complaints(measured, BEFORE)

    assert complaint.startswith("one chunk takes 50 calls, +25% over the 40 recorded; `python -m loadtest.guard`")
