"""What keys, quotas, catalog and metrics add to the bare relay, in microseconds of CPU per request.

    python -m loadtest.access --requests 5000 --rounds 5

Each round runs the bare relay (loadtest/bare.py), the gateway that is open to all, and the gateway with everything on,
over 16 connections, one after the other in front of the same engine; the figures are medians over the rounds.
Everything is: a key that is checked, limits on requests and tokens by minute and by day for the key, the model and all
together, an alias that is renamed both ways, the usage log, and all metrics.
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


def everything(folder: Path) -> tuple[dict[str, object], dict[str, object], str]:
    """Sections with all of it on, the model's settings, and the key."""
    keys = folder / "keys.yaml"
    key = key_edits.create(keys, "load")
    sections: dict[str, object] = {
        "auth": {"keys_file": str(keys)},
        "quotas": {"total": _LIMITS, "each_key": _LIMITS},
        "usage": {"file": str(folder / "usage.jsonl")},
    }
    return sections, {"served_name": "google/gemma-4-E4B-it", "limits": _LIMITS}, key


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
    found: dict[str, list[float]] = {"bare relay": [], "open gateway": [], "everything on": []}
    engine = free_port()
    with tempfile.TemporaryDirectory() as name, running(engine_command(engine), engine):
        folder = Path(name)
        sections, model, key = everything(folder)
        for _ in range(rounds):
            first, second, third = free_port(), free_port(), free_port()
            open_to_all = gateway(second, engine, folder, {}, {})
            full = gateway(third, engine, folder, sections, model)
            found["bare relay"].append(cost(bare(first, engine), first, requests, None))
            found["open gateway"].append(cost(open_to_all, second, requests, None))
            found["everything on"].append(cost(full, third, requests, key))
    for proxy, figures in found.items():
        click.echo(f"{proxy:16} {statistics.median(figures):6.1f} µs   ({', '.join(f'{f:.1f}' for f in figures)})")
    added = statistics.median(b - a for a, b in zip(found["bare relay"], found["everything on"], strict=True))
    click.echo(f"{'added':16} {added:6.1f} µs")


if __name__ == "__main__":
    main()
