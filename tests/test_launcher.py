"""gateway.launch(): failures that need no engine to be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gateway
from gateway.launcher import LaunchError, group_members


def test_launch_is_exported_and_stays_callable_after_its_module_was_imported() -> None:
    import gateway.launcher

    assert gateway.launch is gateway.launcher.launch


def test_package_has_nothing_else_to_offer() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lunch'"):
        _ = gateway.lunch


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with pytest.raises(LaunchError, match=r"serve exited with code 2\n(.|\n)*gemma-gateway: ") as caught:
        gateway.launch(tmp_path, log=log)
    assert log.read_text().strip() in str(caught.value)


def test_members_of_a_group_are_found() -> None:
    sleeper = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()']); print(p.pid); p.wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", sleeper], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        assert process.stdout
        child = int(process.stdout.readline())
        assert group_members(process.pid) == sorted([process.pid, child])
        assert os.getpid() not in group_members(process.pid)
    assert group_members(process.pid) == []
