"""What a proxy in front of the engine costs, side by side: the gateway with everything on, and its peers.

    python -m loadtest.overhead --rounds 5 --json overhead.json --plot overhead.png
    python -m loadtest.overhead --scenario small --scenario streams --vllm-router PATH

Each scenario runs direct, through the gateway and through each peer that is installed, one after the other in each
round, all in front of the same engine that does nothing. CPU is the proxy's, user and system; figures are medians over
the rounds, ratios those of one round each. Everything on is: a key that is checked, limits, an alias that is renamed
both ways, metrics, request ids and the access log. vllm-router is measured twice, in turn by its policy that costs
least, and as cache-aware by its default; with --choosing each proxy has two engines to choose from.
"""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from loadtest import overhead_proxies as proxies
from loadtest import overhead_report as report
from loadtest.client import connected, exchange
from loadtest.overhead_load import measure
from loadtest.overhead_proxies import Proxy
from loadtest.overhead_report import Results, Sample
from loadtest.overhead_scenarios import Scenario, named
from loadtest.processes import engine_command, free_port, running, until_calm

_SMALL = b'{"model":"gemma","messages":[{"role":"user","content":"Say hello."}],"max_tokens":16}'
#: Seconds that a proxy may take from listening to its first answer.
_UNTIL_READY = 60.0


@contextlib.contextmanager
def started(proxy: Proxy, engine: int, choosing: bool) -> Iterator[tuple[int, int | None]]:
    """Port and process of a proxy that answers; the engine's own port, and none, for no proxy. `choosing`: the proxy
    takes the engine for two.
    """
    if proxy.command is None:
        yield engine, None
        return
    port = free_port()
    hosts = ("127.0.0.1", "localhost") if choosing else ("127.0.0.1",)
    with running(proxy.command(port, [f"{host}:{engine}" for host in hosts]), port) as pid:
        _until_ready(proxy, port, pid)
        yield port, pid


def _until_ready(proxy: Proxy, port: int, pid: int) -> None:
    """Raises RuntimeError where it does not answer in time."""
    deadline = time.monotonic() + _UNTIL_READY
    status = 0
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError), connected(port) as connection:
            connection.settimeout(10)
            status = exchange(connection, _SMALL, proxy.headers)
            if status == 200:
                until_calm(pid)
                return
        time.sleep(0.2)
    raise RuntimeError(f"{proxy.name} answers {status or 'nothing'}")


def run(
    scenario: Scenario, those: Sequence[Proxy], rounds: int, seconds: float, choosing: bool
) -> dict[str, list[Sample]]:
    """The samples of one scenario by proxy, as many as `rounds` and the scenario allow."""
    rounds = min(rounds, scenario.most_rounds)
    engine = free_port()
    samples: dict[str, list[Sample]] = {proxy.name: [] for proxy in those}
    with ExitStack() as stack:
        stack.enter_context(running(engine_command(engine, scenario.pace), engine))
        ready = partial(started, engine=engine, choosing=choosing)
        lasting = {} if scenario.fresh else {p.name: stack.enter_context(ready(p)) for p in those}
        for number in range(rounds):
            for proxy in _turned(those, number):
                click.echo(f"{scenario.name}: round {number + 1} of {rounds}, {proxy.name}", err=True)
                with contextlib.nullcontext(lasting[proxy.name]) if lasting else ready(proxy) as (port, pid):
                    tally = measure(scenario.plan(proxy.headers, seconds), port, pid)
                samples[proxy.name].append(Sample.of(tally, scenario, pid is not None))
    return samples


def _turned(those: Sequence[Proxy], number: int) -> list[Proxy]:
    """Another order each round, so that a machine that grows slower does so for all."""
    start = number % len(those)
    return [*those[start:], *those[:start]]


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _chosen(names: tuple[str, ...]) -> list[Scenario]:
    try:
        return named(names)
    except KeyError as fault:
        raise click.BadParameter(f"no scenario is called {fault.args[0]!r}") from None


@click.command(help=__doc__)
@click.option("--scenario", "names", multiple=True, help="Only these: small-1, small-16, small for both, and so on.")
@click.option("--rounds", type=int, help="Times that each proxy is measured; default: 5, or 1 if quick.")
@click.option("--seconds", type=float, help="Length of one measurement; default: 2, or 1 if quick.")
@click.option("--quick", is_flag=True, help="For a first look.")
@click.option("--choosing", is_flag=True, help="Each proxy takes the engine for two, and has to choose.")
@click.option("--vllm-router", help="Its program; default: as in PATH.")
@click.option("--nginx", help="Its program; default: as in PATH.")
@click.option("--litellm", help="Its program; default: as in PATH.")
@click.option("--without", multiple=True, help="A proxy to leave out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for all samples.")
@click.option("--plot", type=click.Path(path_type=Path), help="File for a picture (PNG); needs matplotlib.")
def main(
    names: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    choosing: bool,
    vllm_router: str | None,
    nginx: str | None,
    litellm: str | None,
    without: tuple[str, ...],
    json_file: Path | None,
    plot: Path | None,
) -> None:
    scenarios = _chosen(names)
    _allow_files()
    programs = {proxies.ROUTER: vllm_router, proxies.NGINX: nginx, proxies.LITELLM: litellm}
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        those = [proxy for proxy in proxies.found(Path(folder), programs) if proxy.name not in without]
        for scenario in scenarios:
            times, length = rounds or (1 if quick else 5), seconds or (1 if quick else 2)
            results[scenario.name] = run(scenario, those, times, length, choosing)
            click.echo(report.table(scenario, results[scenario.name]))
    click.echo(report.verdicts(scenarios, results))
    if json_file is not None:
        json_file.write_text(report.as_json(scenarios, results))
    if plot is not None:
        report.draw(scenarios, results, plot)


if __name__ == "__main__":
    main()
