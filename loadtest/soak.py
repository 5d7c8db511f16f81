"""The command `python -m loadtest.soak`: a long, steady load with clients that leave, while memory is watched."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import httpx
import yaml

from gateway.access import key_edits
from loadtest.deployment import plot, requests, scenario
from loadtest.deployment.__main__ import end_properly, plain_url, read_key
from loadtest.deployment.scenario import Scenario
from loadtest.processes import engine_command, free_port, running
from loadtest.soak_load import Load
from loadtest.soak_watch import MIB, Bounds, Sample, Verdict, fit, judge, sample, second_half

_HELP = """Sends a steady load, some of whose clients leave halfway, and watches the gateway's memory.

\b
    python -m loadtest.soak --minutes 10

Without --url it starts a gateway of its own in front of an engine that costs next to nothing. Every --every seconds it
prints memory, open files and requests in flight, from the gateway's /metrics. At the end it fits a line to the second
half, and fails (exit status 1) if memory or open files grew by more than the bounds, if anything is left in flight, or
if requests failed. The key comes from a file or from GEMMA_LOAD_KEY.
"""
_SCENARIO = Path(__file__).parent / "scenarios" / "soak.yaml"
_PACE = 0.02
_SETTLING_SECONDS = 10.0
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, writable=True, path_type=Path)

Look = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True)
class Place:
    """A gateway, its admin address, and a key for it."""

    url: str
    admin: str
    key: str | None


@contextmanager
def own_gateway() -> Iterator[Place]:
    """A gateway with keys in front of an engine that streams a token each 20 ms."""
    port, admin, engine = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        keys, config = Path(name) / "keys.yaml", Path(name) / "gateway.yaml"
        key = key_edits.create(keys, "soak")
        document = {
            "server": {"port": port, "admin_port": admin, "access_log": False},
            "engines": {"default": {"url": f"http://127.0.0.1:{engine}"}},
            "models": {"gemma": {"served_name": "google/gemma-4-E4B-it", "modalities": ["text", "image", "audio"]}},
            "auth": {"keys_file": str(keys)},
        }
        config.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]
        with running(engine_command(engine, _PACE), engine), running(command, port):
            place = Place(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", key)
            _until_ready(place.admin)
            yield place


def _until_ready(admin: str) -> None:
    for _ in range(100):
        with suppress(httpx.TransportError):
            if httpx.get(f"{admin}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise click.ClickException(f"{admin}/readyz is not ready")


async def soak(place: Place, asked: Scenario, model: str, seconds: float, every: float, aborts: float) -> list[Sample]:
    """Runs it; the samples under load, and the last one from after it."""
    bodies = [json.dumps(request.body).encode() for request in requests.generate(asked, model, 0)]
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {place.key}"} if place.key else {})}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with (
        httpx.AsyncClient(base_url=place.url, headers=headers, timeout=asked.timeout_seconds, limits=limits) as client,
        httpx.AsyncClient(base_url=place.admin) as admin,
    ):
        load = Load(client, bodies, aborts, asked.seed)
        started = time.monotonic()

        async def look() -> Sample:
            try:
                metrics = (await admin.get("/metrics")).raise_for_status().text
                return sample(time.monotonic() - started, metrics, **load.counts)
            except (httpx.HTTPError, KeyError) as error:
                raise click.ClickException(f"{place.admin}/metrics cannot be read: {error!r}") from error

        sending = asyncio.create_task(load.run(seconds, asked.rate))
        samples = [await look()]
        while not (await asyncio.wait({sending}, timeout=every))[0]:
            samples.append(await look())
            click.echo(samples[-1].line())
        await sending
        for failure, count in load.failures.most_common():
            click.echo(f"failed: {failure} ({count} times)")
        return [*samples, await _settled(look)]


async def _settled(look: Look) -> Sample:
    """The first sample with nothing in flight, or else the last one before patience ends."""
    end = time.monotonic() + _SETTLING_SECONDS
    while any((seen := await look()).in_flight.values()) and time.monotonic() < end:  # noqa: ASYNC110  (another process can only be polled)
        await asyncio.sleep(0.2)
    return seen


def draw(target: Path, samples: Sequence[Sample]) -> None:
    """Writes a PNG: memory with the fitted line, and open files, over time."""
    figure = plot.blank(2, 1)
    memory, files = figure.axes
    times, half = [seen.seconds for seen in samples], second_half(samples)
    line = fit(half, "rss_bytes")
    memory.plot(times, [seen.rss_bytes / MIB for seen in samples], label="resident memory, MiB")
    ends = [half[0].seconds, half[-1].seconds]
    memory.plot(ends, [line.at(end) / MIB for end in ends], "--", label=f"{line.per_second * 3600 / MIB:+.1f} MiB/h")
    files.plot(times, [seen.open_fds for seen in samples], label="open files")
    for axes in figure.axes:
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target, format="png", dpi=110)


@click.command(help=_HELP)
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--url", callback=plain_url, help="A gateway that runs already; with --admin.")
@click.option("--admin", callback=plain_url, help="Its admin address, for example http://gateway:9090.")
@click.option("--key-file", type=_FILE, help="Holds its key, alone on its line.")
@click.option("--model", default="gemma", show_default=True)
@click.option("--scenario", "file", type=_FILE, default=_SCENARIO, help="Rate and mix; else scenarios/soak.yaml.")
@click.option(
    "--aborts", default=0.3, show_default=True, type=click.FloatRange(0, 1), help="Share that leaves halfway."
)
@click.option("--every", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds.")
@click.option("--growth-mib", default=8.0, show_default=True, help="Bound on memory, over the second half.")
@click.option("--growth-fds", default=32.0, show_default=True, help="Bound on open files, over the second half.")
@click.option("--failed-percent", default=1.0, show_default=True, help="Bound on requests that failed.")
@click.option("--json", "json_file", type=_NEW, help="Write samples and verdict there.")
@click.option("--plot", "plot_file", type=_NEW, help="Write a PNG there.")
def main(
    minutes: float,
    url: str | None,
    admin: str | None,
    key_file: Path | None,
    model: str,
    file: Path,
    aborts: float,
    every: float,
    growth_mib: float,
    growth_fds: float,
    failed_percent: float,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    asked, bounds = scenario.read(file), Bounds(growth_mib, growth_fds, failed_percent)
    if plot_file:
        plot.blank(1, 1)
    with _place(url, admin, key_file) as place:
        *samples, after = asyncio.run(soak(place, asked, model, minutes * 60, every, aborts))
    verdict = judge(samples, after, bounds)
    click.echo(f"{after.line()}\n{_told(verdict)}")
    if json_file:
        told = {"minutes": minutes, "bounds": asdict(bounds), "settings": asked.model_dump(mode="json")}
        told |= {"samples": [asdict(seen) for seen in (*samples, after)], "verdict": asdict(verdict)}
        json_file.write_text(json.dumps(told, indent=2) + "\n")
    if plot_file:
        draw(plot_file, samples)
    if verdict.faults:
        raise click.ClickException("; ".join(verdict.faults))


@contextmanager
def _place(url: str | None, admin: str | None, key_file: Path | None) -> Iterator[Place]:
    """The one that was named, or one of its own."""
    if (url is None) != (admin is None):
        raise click.UsageError("--url and --admin go together")
    if url is not None and admin is not None:
        yield Place(url, admin, read_key(key_file, "GEMMA_LOAD_KEY"))
        return
    with own_gateway() as place:
        yield place


def _told(verdict: Verdict) -> str:
    growth = f"{verdict.growth_mib:+.1f} MiB ({verdict.mib_per_hour:+.1f} MiB/h), {verdict.growth_fds:+.1f} open files"
    return f"second half, fitted: {growth}; left in flight: {verdict.left_in_flight or 'nothing'}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_properly)
    main()
