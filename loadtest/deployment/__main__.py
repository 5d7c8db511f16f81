"""The command `python -m loadtest.deployment`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from loadtest.deployment import plot, report, scenario, table, tool
from loadtest.deployment.records import Outcome
from loadtest.deployment.scenario import Scenario

_HELP = """Measures a deployment by a scenario (see loadtest/scenarios and docs/load-testing.md).

\b
    python -m loadtest.deployment loadtest/scenarios/chat.yaml --url http://gateway:8000 --key-file key

Requests arrive when the scenario says, whether or not earlier ones have been answered. With --direct the same requests
go to the engine itself too, first, and the difference is told. The key comes from a file, or from the variable
GEMMA_LOAD_KEY (GEMMA_LOAD_DIRECT_KEY for --direct), never from the command line.
"""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, writable=True, path_type=Path)


def read_key(file: Path | None, variable: str) -> str | None:
    """From the file, or else from the environment. Raises click.ClickException for what cannot be a key."""
    key = (file.read_text() if file else os.environ.get(variable, "")).strip()
    if not key.isascii() or not key.isprintable() or set(key) & set(" $"):
        raise click.ClickException(f"{file or variable} holds no key: one line, without blanks")
    return key or None


def end_properly(number: int, _: object) -> None:
    """A handler of signals. What was started has to end too, which it does on an exception."""
    sys.exit(128 + number)


def plain_url(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    """Without /v1, and refused with a password in it, as it is written into reports."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise click.BadParameter("an address like http://gateway:8000, without a user or a query")
    return url.rstrip("/").removesuffix("/v1")


@click.command(help=_HELP)
@click.argument("file", metavar="SCENARIO.yaml", type=_FILE)
@click.option("--url", required=True, callback=plain_url, help="The gateway, for example http://gateway:8000.")
@click.option("--model", default="gemma", show_default=True, help="Its name for the model.")
@click.option("--key-file", type=_FILE, help="Holds the gateway's key, alone on its line.")
@click.option("--direct", callback=plain_url, help="The engine, to be measured beside the gateway.")
@click.option("--direct-model", help="The engine's name for the model, where it is another.")
@click.option("--direct-key-file", type=_FILE, help="Holds the engine's key, if it wants one.")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="Runs of each, in turn, pooled.")
@click.option("--json", "json_file", type=_NEW, help="Write the figures there.")
@click.option("--plot", "plot_file", type=_NEW, help="Write a PNG of the distributions there.")
@click.option(
    "--aiperf", type=click.Path(path_type=Path), help="The tool underneath; else $AIPERF, .venv-aiperf, PATH."
)
def main(
    file: Path,
    url: str,
    model: str,
    key_file: Path | None,
    direct: str | None,
    direct_model: str | None,
    direct_key_file: Path | None,
    rounds: int,
    json_file: Path | None,
    plot_file: Path | None,
    aiperf: Path | None,
) -> None:
    asked = scenario.read(file)
    targets = [tool.Target("gateway", url, model, read_key(key_file, "GEMMA_LOAD_KEY"))]
    if direct is not None:
        key = read_key(direct_key_file, "GEMMA_LOAD_DIRECT_KEY")
        targets.append(tool.Target("direct", direct, direct_model or model, key))
    if plot_file:
        plot.blank(1, 1)
    started = datetime.now(UTC)
    measured = _measure(tool.find(aiperf), targets, asked, rounds)
    whole, kinds = _figures(measured, asked)
    click.echo(f"{file.stem}: {asked.requests} requests at {asked.rate:g}/s ({asked.arrivals}), {rounds} round(s)\n")
    click.echo(f"{table.whole(whole)}\n\n{table.by_kind(kinds)}")
    if json_file:
        told = {**_about(file, started, targets, asked, rounds), **report.document(whole, kinds)}
        json_file.write_text(json.dumps(told, indent=2) + "\n")
    if plot_file:
        plot.draw(plot_file, f"{file.stem}, {asked.rate:g} requests/s", _pooled(measured))
    if not any(outcome.error is None for outcomes in _pooled(measured).values() for outcome in outcomes):
        raise click.ClickException("no request succeeded")


def _about(
    file: Path, started: datetime, targets: Sequence[tool.Target], asked: Scenario, rounds: int
) -> dict[str, object]:
    """What was measured, and when. No key."""
    return {
        "scenario": file.stem,
        "started": started.isoformat(timespec="seconds"),
        "urls": {target.name: target.url for target in targets},
        "rounds": rounds,
        "settings": asked.model_dump(mode="json"),
    }


def _measure(
    command: Path, targets: Sequence[tool.Target], asked: Scenario, rounds: int
) -> dict[str, list[list[Outcome]]]:
    """The outcomes by target and round. The engine is measured before the gateway, in every round."""
    measured: dict[str, list[list[Outcome]]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for place, target in enumerate(reversed(targets)):
            label = f"{target.name} {number + 1}/{rounds}"
            with (
                tempfile.TemporaryDirectory(prefix="deployment-") as folder,
                click.progressbar(length=asked.requests, label=label, file=sys.stderr) as bar,
            ):
                run = number * len(targets) + place
                found = tool.measure(command, target, asked, Path(folder), run, _advance(bar))
                bar.update(asked.requests - bar.pos)
            measured[target.name].append(found)
    return measured


def _advance(bar: Any) -> Callable[[int], None]:
    """Sets a progress bar to a count, forwards only."""

    def advance(count: int) -> None:
        bar.update(max(count - bar.pos, 0))

    return advance


def _pooled(measured: Mapping[str, list[list[Outcome]]]) -> dict[str, list[Outcome]]:
    """The rounds together."""
    return {name: [outcome for run in runs for outcome in run] for name, runs in measured.items()}


def _figures(
    measured: dict[str, list[list[Outcome]]], asked: Scenario
) -> tuple[dict[str, report.Figures], dict[str, dict[str, report.Figures]]]:
    """All together, and by kind."""
    whole, kinds = {}, {}
    for name, outcomes in _pooled(measured).items():
        seconds = sum(report.length(run) for run in measured[name])
        whole[name] = report.figures(outcomes, seconds, asked.slo)
        kinds[name] = report.by_kind(outcomes, seconds, asked.slo)
    return whole, kinds


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_properly)
    main()
