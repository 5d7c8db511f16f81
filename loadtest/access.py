"""What keys, quotas, catalog and metrics add to the bare relay, in microseconds of CPU per request.

    python -m loadtest.access --requests 5000 --rounds 5

Each round runs the bare relay (loadtest/bare.py), the gateway that is open to all, the gateway with what is usual, and
with everything on, over 16 connections, one after the other in front of the same engine; the figures are medians over
the rounds. Usual is: a key that is checked, its limits on requests and tokens by minute, an alias that is renamed both
ways, all metrics. Everything is limits by minute and by day for the key, the model and all together, and the usage log.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import yaml

from gateway.access import key_edits
from loadtest.client import connected, exchange_at_once
from loadtest.processes import cpu_seconds, engine_command, free_port, running

_LIMITS = {"requests_per_minute": 10**8, "tokens_per_minute": 10**10, "tokens_per_day": 10**12, "max_in_flight": 10**6}
BODY = json.dumps(
    {"model": "gemma", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
).encode()

_CONNECTIONS = 16


def bare(port: int, engine: int) -> list[str]:
    """The relay alone."""
    return [sys.executable, "-m", "loadtest.bare", str(port), str(engine)]


def gateway(port: int, engine: int, folder: Path, more: dict[str, object], model: dict[str, object]) -> list[str]:
    """The gateway without an access log, with further sections of the configuration."""
    config = write_config(folder, port=port, engine=engine, more=more, model=model)
    return [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]


def write_config(folder: Path, *, port: int, engine: int, more: dict[str, object], model: dict[str, object]) -> Path:
    """Its configuration."""
    document = {
        "server": {"port": port, "admin_port": free_port(), "access_log": False},
        "engines": {"default": {"url": f"http://127.0.0.1:{engine}"}},
        "models": {"gemma": {"modalities": ["text"], **model}},
        **more,
    }
    config = folder / f"{port}.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def usual(folder: Path) -> tuple[dict[str, object], dict[str, object], str]:
    """Sections with what most deployments have on, the model's settings, and the key: keys, limits on requests and
    tokens by minute for each, an alias that is renamed both ways.
    """
    keys = folder / "keys.yaml"
    key = key_edits.create(keys, "load")
    limits = {name: _LIMITS[name] for name in ("requests_per_minute", "tokens_per_minute")}
    sections: dict[str, object] = {"auth": {"keys_file": str(keys)}, "quotas": {"each_key": limits}}
    return sections, {"served_name": "google/gemma-4-E4B-it"}, key


def everything(folder: Path) -> tuple[dict[str, object], dict[str, object], str]:
    """The same with every kind of limit for the key, the model and all together, and the usage log."""
    sections, model, key = usual(folder)
    sections |= {"quotas": {"total": _LIMITS, "each_key": _LIMITS}, "usage": {"file": str(folder / "usage.jsonl")}}
    return sections, {**model, "limits": _LIMITS}, key


def cost(command: list[str], port: int, requests: int, key: str | None) -> float:
    """Microseconds of CPU per request."""
    headers = f"authorization: Bearer {key}\r\n" if key else ""
    with running(command, port) as pid, ExitStack() as stack:
        connections = [stack.enter_context(connected(port)) for _ in range(_CONNECTIONS)]
        for _ in range(20):
            if (statuses := exchange_at_once(connections, BODY, headers)) != {200}:
                raise RuntimeError(f"{command!r} answered {statuses}")
        started = cpu_seconds(pid)
        for _ in range(requests // _CONNECTIONS):
            exchange_at_once(connections, BODY, headers)
        return (cpu_seconds(pid) - started) / (requests // _CONNECTIONS * _CONNECTIONS) * 1e6


@click.command(help=__doc__)
@click.option("--requests", default=5000, help="Requests per proxy and round.")
@click.option("--rounds", default=5)
def main(requests: int, rounds: int) -> None:
    found: dict[str, list[float]] = {"bare relay": [], "open gateway": [], "what is usual": [], "everything on": []}
    engine = free_port()
    with tempfile.TemporaryDirectory() as name, running(engine_command(engine), engine):
        folder = Path(name)
        kinds = {"what is usual": usual(folder), "everything on": everything(folder)}
        for _ in range(rounds):
            port = free_port()
            found["bare relay"].append(cost(bare(port, engine), port, requests, None))
            found["open gateway"].append(cost(gateway(port, engine, folder, {}, {}), port, requests, None))
            for kind, (sections, model, key) in kinds.items():
                found[kind].append(cost(gateway(port, engine, folder, sections, model), port, requests, key))
    for proxy, figures in found.items():
        click.echo(f"{proxy:16} {statistics.median(figures):6.1f} µs   ({', '.join(f'{f:.1f}' for f in figures)})")
    added = statistics.median(b - a for a, b in zip(found["bare relay"], found["what is usual"], strict=True))
    click.echo(f"{'added':16} {added:6.1f} µs")


if __name__ == "__main__":
    main()
