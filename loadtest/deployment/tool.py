"""Runs aiperf, which sends the requests and takes the times."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from loadtest.deployment import records, requests
from loadtest.deployment.scenario import Scenario

#: Where the child finds the key. Its configuration only names it.
KEY_VARIABLE = "GEMMA_LOAD_KEY"
VARIABLE = "AIPERF"
_BESIDE = Path(".venv-aiperf/bin/aiperf")
_INSTALL = "python3.11 -m venv .venv-aiperf && .venv-aiperf/bin/pip install 'aiperf==0.13.*'"
#: Its start, and the sorting of records at the end.
_SPARE_SECONDS = 120
_TAIL = 1500

#: No datasets kept in the home directory; and connections that were idle for longer are not used again: uvicorn, and so
#: vLLM, closes them after 5 s, while aiperf would keep them for 300 s and count an error.
_ENVIRONMENT = {"AIPERF_DATASET_MMAP_CACHE_ENABLED": "false", "AIPERF_HTTP_KEEPALIVE_TIMEOUT": "4"}

#: aiperf loads a tokenizer in any case. As the server's counts are used, one that knows no word will do, and needs no
#: download.
_TOKENIZER = {
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"},
}


@dataclass(frozen=True)
class Target:
    """What is measured."""

    name: str
    url: str
    model: str
    key: str | None = None

    def __repr__(self) -> str:
        """Without the key."""
        return f"Target({self.name!r}, {self.url!r}, {self.model!r})"


def find(given: Path | None) -> Path:
    """The command: as given, by $AIPERF, in .venv-aiperf, or on the path. Raises click.ClickException without one."""
    wanted = given or (Path(named) if (named := os.environ.get(VARIABLE)) else None)
    if wanted is None:
        wanted = _BESIDE if _BESIDE.exists() else Path("aiperf")
    if (command := shutil.which(wanted)) is None:
        raise click.ClickException(f"{wanted} is not there. aiperf has an environment of its own:\n  {_INSTALL}")
    return Path(command)


def measure(
    command: Path, target: Target, scenario: Scenario, folder: Path, run: int, tell: Callable[[int], None]
) -> list[records.Outcome]:
    """Sends the scenario's requests. `folder` is for this run alone; `tell` is told how many have been answered.

    Raises click.ClickException, with the end of the tool's log, when it did not measure.
    """
    kinds = _write_input(folder, requests.generate(scenario, target.model, run))
    config = folder / "aiperf.yaml"
    config.write_text(yaml.safe_dump(_configuration(target, scenario, folder)))
    written = folder / "out" / "profile_export.jsonl"
    deadline = time.monotonic() + scenario.requests / scenario.rate + scenario.timeout_seconds + _SPARE_SECONDS
    with _running([str(command), "profile", "--config", str(config)], folder / "log", target.key) as process:
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise click.ClickException(f"aiperf has not ended in time{_log(folder, target)}")
            time.sleep(0.2)
            tell(_lines(written) - scenario.warm_up)
    found = records.read(written, kinds) if written.exists() else []
    if len(found) != scenario.requests:
        raise click.ClickException(f"aiperf measured {len(found)} of {scenario.requests}{_log(folder, target)}")
    return found


def _write_input(folder: Path, made: Iterator[requests.Request]) -> list[str]:
    """Bodies line by line, and the tokenizer; the kinds of the lines."""
    kinds = []
    with (folder / "requests.jsonl").open("w") as file:
        for request in made:
            file.write(json.dumps(request.body) + "\n")
            kinds.append(request.kind)
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    for name, document in _TOKENIZER.items():
        (tokenizer / name).write_text(json.dumps(document))
    return kinds


def _configuration(target: Target, scenario: Scenario, folder: Path) -> dict[str, object]:
    """No concurrency is set: requests start when they are due, however many are open."""
    endpoint: dict[str, object] = {
        "url": target.url,
        "path": "/v1/chat/completions",
        "type": "chat",
        "streaming": True,
        "timeout": scenario.timeout_seconds,
        "useServerTokenCount": True,
    }
    if target.key:
        endpoint["apiKey"] = f"${{{KEY_VARIABLE}}}"
    benchmark = {
        "model": target.model,
        "endpoint": endpoint,
        "tokenizer": {"name": str(folder / "tokenizer")},
        "dataset": {"type": "file", "path": str(folder / "requests.jsonl"), "format": "raw_payload"},
        "phases": _phases(scenario),
        "artifacts": {"dir": str(folder / "out"), "summary": ["json"], "records": ["jsonl"]},
        "gpuTelemetry": {"enabled": False},
        "serverMetrics": {"enabled": False},
        "runtime": {"ui": "none", "workers": max(1, min(4, (os.cpu_count() or 2) // 2))},
    }
    return {"schemaVersion": "2.0", "randomSeed": scenario.seed, "benchmark": benchmark}


def _phases(scenario: Scenario) -> list[dict[str, object]]:
    measured: dict[str, object] = {"name": records.MEASURED, "type": scenario.arrivals, "rate": scenario.rate}
    phases = [{**measured, "requests": scenario.requests}]
    if scenario.warm_up:
        before = {"name": records.WARM_UP, "type": "concurrency", "concurrency": 1, "requests": scenario.warm_up}
        phases.insert(0, {**before, "excludeFromResults": True})
    return phases


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path, key: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """The process in a group of its own, since it starts others; at the end none of them is left."""
    environment = {**os.environ, **_ENVIRONMENT, KEY_VARIABLE: key or ""}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  (the command that the user named)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _log(folder: Path, target: Target) -> str:
    """The end of it, without the key."""
    text = (folder / "log").read_text(errors="replace")
    return f":\n{(text.replace(target.key, '***') if target.key else text)[-_TAIL:]}"
