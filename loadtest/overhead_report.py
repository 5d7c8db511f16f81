"""The figures of a comparison: as tables, as JSON, as a picture, and against what is to be reached."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtest.overhead_load import Tally
from loadtest.overhead_proxies import DIRECT, GATEWAY, LITELLM, ROUTER, ROUTER_BY_DEFAULT
from loadtest.overhead_scenarios import Scenario, Unit

#: How many times dearer LiteLLM is to be than the gateway, at least.
_LITELLM: Mapping[Unit, float] = {"request": 100.0, "chunk": 25.0}
_COST: Mapping[Unit, str] = {"request": "µs/request", "chunk": "µs/chunk", "stream": "KiB/stream"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `cost`: of CPU in microseconds, or of memory in KiB; None where there is no proxy. Times in ms:
    from request to first byte, and between pieces of an answer.
    """

    cost: float | None
    count: int
    wait_p50: float
    wait_p99: float
    gap_p50: float
    gap_p99: float
    errors: int

    @classmethod
    def of(cls, tally: Tally, scenario: Scenario, proxied: bool) -> Sample:
        """What a load has seen."""
        count = {"request": tally.requests, "chunk": tally.events, "stream": scenario.connections}[scenario.unit]
        used = tally.grown / 1024 if scenario.unit == "stream" else tally.cpu * 1e6
        return cls(
            used / count if proxied and count else None,
            count,
            *_percentiles(tally.waits),
            *_percentiles(tally.gaps),
            tally.errors,
        )


#: By scenario and proxy, a sample for each round.
Results = dict[str, dict[str, list[Sample]]]


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th, in ms."""
    if not seconds:
        return 0.0, 0.0
    middle, late = np.percentile(seconds, (50, 99)) * 1000
    return float(middle), float(late)


def costs(samples: Sequence[Sample]) -> list[float]:
    """Of each round that has one."""
    return [sample.cost for sample in samples if sample.cost is not None]


def ratio(samples: Mapping[str, Sequence[Sample]], proxy: str, peer: str) -> float | None:
    """The median of what `proxy` costs in a round as a share of what `peer` costs in it."""
    pairs = zip(costs(samples.get(proxy, ())), costs(samples.get(peer, ())), strict=False)
    shares = [own / other for own, other in pairs if other]
    return statistics.median(shares) if shares else None


def added(samples: Mapping[str, Sequence[Sample]], proxy: str, figure: str) -> float | None:
    """The median of what a round's `figure` is above the engine's own in that round, in ms."""
    pairs = zip(samples.get(proxy, ()), samples.get(DIRECT, ()), strict=False)
    above = [getattr(own, figure) - getattr(direct, figure) for own, direct in pairs]
    return statistics.median(above) if above else None


def table(scenario: Scenario, samples: Mapping[str, Sequence[Sample]]) -> str:
    """One line a proxy."""
    titles = f"{_COST[scenario.unit]:>12}  {'quartiles':>15}  {'of router':>9}"
    lines = [
        f"\n{scenario.title}",
        f"{'':12}{titles}  {'first byte +p50':>15} {'+p99 ms':>8}  {'gap +p50':>9} {'+p99 ms':>8}  errors",
    ]
    return "\n".join(lines + [_line(scenario, samples, proxy) for proxy in samples])


def _line(scenario: Scenario, samples: Mapping[str, Sequence[Sample]], proxy: str) -> str:
    own = costs(samples[proxy])
    share = ratio(samples, proxy, ROUTER)
    middle = f"{statistics.median(own):.1f}" if own else "-"
    low, high = np.percentile(own, (25, 75)) if own else (0, 0)
    quartiles = f"{low:.1f}-{high:.1f}" if own else "-"
    times = [added(samples, proxy, name) for name in ("wait_p50", "wait_p99", "gap_p50", "gap_p99")]
    told = [f"{time:.2f}" if time is not None and proxy != DIRECT else "-" for time in times]
    if scenario.unit == "request":
        told[2:] = ["-", "-"]
    return (
        f"{proxy:12}{middle:>12}  {quartiles:>15}  {'-' if share is None else f'{share:.2f}':>9}"
        f"  {told[0]:>15} {told[1]:>8}  {told[2]:>9} {told[3]:>8}  {sum(each.errors for each in samples[proxy]):>6}"
    )


def verdicts(scenarios: Sequence[Scenario], results: Results) -> str:
    """Each thing to be reached that this run can tell of, and whether it was."""
    lines = [line for scenario in scenarios for line in _verdicts(scenario, results[scenario.name])]
    errors = sum(each.errors for samples in results.values() for each in samples.get(GATEWAY, ()))
    return "\n".join(["", *lines, _verdict("errors", errors, 0, "at most")])


def _verdicts(scenario: Scenario, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    lines = []
    for router in (ROUTER, ROUTER_BY_DEFAULT):
        share = ratio(samples, GATEWAY, router)
        if scenario.goal is not None and share is not None:
            lines.append(_verdict(f"{scenario.name}: share of {router}", share, scenario.goal, "at most"))
        own, peer = (added(samples, proxy, "wait_p99") for proxy in (GATEWAY, router))
        if own is None or peer is None or scenario.goal is not None:
            continue
        if scenario.connections == 1 and scenario.unit == "request":
            lines.append(_verdict(f"{scenario.name}: added p99, ms, beside {router}", own, peer, "at most"))
    times = ratio(samples, LITELLM, GATEWAY)
    least = _LITELLM.get(scenario.unit)
    if least is not None and times is not None and scenario.goal is not None:
        lines.append(_verdict(f"{scenario.name}: {LITELLM} is dearer, times", times, least, "at least"))
    return lines


def _verdict(what: str, value: float, goal: float, side: str) -> str:
    reached = value <= goal if side == "at most" else value >= goal
    return f"{'reached' if reached else 'MISSED ':8}{what} {value:.2f} ({side} {goal:.2f})"


def as_json(scenarios: Sequence[Scenario], results: Results) -> str:
    """Every sample, and the ratios."""
    document = {
        scenario.name: {
            "title": scenario.title,
            "cost": _COST[scenario.unit],
            "goal": scenario.goal,
            "proxies": {
                proxy: {
                    "share_of_router": ratio(results[scenario.name], proxy, ROUTER),
                    "samples": [asdict(each) for each in samples],
                }
                for proxy, samples in results[scenario.name].items()
            },
        }
        for scenario in scenarios
    }
    return json.dumps(document, indent=1)


def draw(scenarios: Sequence[Scenario], results: Results, target: Path) -> None:
    """Bars of median costs with their quartiles, a panel for each scenario. Needs matplotlib."""
    # It takes a second to import, and only the picture needs it.
    from matplotlib.figure import Figure

    columns = min(len(scenarios), 4)
    rows = -(-len(scenarios) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for scenario, axes in zip(scenarios, panels, strict=False):
        proxies = {name: own for name, samples in results[scenario.name].items() if (own := costs(samples))}
        middles = [statistics.median(own) for own in proxies.values()]
        spread = [np.abs(np.percentile(own, (25, 75)) - statistics.median(own)) for own in proxies.values()]
        bars = axes.bar(list(proxies), middles, yerr=np.array(spread).T, color=[_colour(name) for name in proxies])
        axes.bar_label(bars, fmt=_short)
        axes.margins(y=0.15)
        axes.set(title=scenario.title, ylabel=_COST[scenario.unit])
        # LiteLLM would leave nothing to see of the others.
        axes.set_yscale("log" if LITELLM in proxies else "linear")
    for axes in panels[len(scenarios) :]:
        axes.set_visible(False)
    figure.savefig(target, dpi=150)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _colour(proxy: str) -> str:
    return "tab:blue" if proxy == GATEWAY else "tab:gray"
