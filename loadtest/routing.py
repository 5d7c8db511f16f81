"""How well each routing policy finds the engines' caches and shares out the load, in simulated time.

    python -m loadtest.routing --engines 1,2,4,8,16,32,64 --json routing.json --plot routing.png

The policies are the gateway's own; engines, caches and conversations are models (loadtest/routing_*.py). The goals for
the default: at least 90 % of the hits of one endless cache, and no engine above 1.25 times the mean load. They are
marked where they are missed. Runs are the same for the same seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click

from loadtest.routing_policies import POLICIES
from loadtest.routing_simulation import Figures, Plan, Simulation
from loadtest.routing_trace import Traffic

#: What the default policy has to reach: hits of the ideal, and the busiest engine by the mean.
OF_IDEAL = 0.9
BUSIEST = 1.25

_HEAD = (
    "| engines | policy | hit ratio | of ideal | wait p50, s | wait p99, s | mean load | busiest | busiest, tokens |"
)


def simulated(plan: Plan, policy: str) -> Figures:
    """One policy's figures."""
    return Simulation(plan, [POLICIES[policy]() for _ in range(plan.gateways)]).run()


def reaches_goals(figures: Figures) -> bool:
    """Whether both goals are met."""
    return figures.of_ideal >= OF_IDEAL and figures.busiest <= BUSIEST


def line(engines: int, policy: str, figures: Figures) -> str:
    """A row of the table."""
    mark = "" if reaches_goals(figures) else " *"
    return (
        f"| {engines} | {policy}{mark} | {figures.hit:.3f} | {figures.of_ideal:.3f} | {figures.wait_p50:.2f}"
        f" | {figures.wait_p99:.2f} | {figures.load:.1f} | {figures.busiest:.2f} | {figures.busiest_computed:.2f} |"
    )


def plot(path: Path, rows: Sequence[tuple[int, str, Figures]]) -> None:
    """Hits, waits and busiest engine over the number of engines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    for axes, (name, title, scale) in zip(
        figure.subplots(1, 3),
        (
            ("of_ideal", "cache hits by the ideal", "linear"),
            ("wait_p99", "p99 of the wait, s", "log"),
            ("busiest", "busiest engine by the mean", "linear"),
        ),
        strict=True,
    ):
        for policy in dict.fromkeys(policy for _, policy, _ in rows):
            points = [(engines, getattr(figures, name)) for engines, its, figures in rows if its == policy]
            axes.plot(*zip(*points, strict=True), marker="o", label=policy)
        axes.set(title=title, xlabel="engines", yscale=scale)
        axes.set_xscale("log", base=2)
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def _require_matplotlib() -> None:
    """Before the minutes of simulation, rather than after them."""
    if find_spec("matplotlib") is None:
        raise click.ClickException("--plot needs matplotlib: pip install 'gemma-gateway[dev]'")


def _numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    try:
        return [int(number) for number in value.split(",")]
    except ValueError:
        raise click.BadParameter("must be numbers with commas between") from None


def _names(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    names = value.split(",")
    if unknown := [name for name in names if name not in POLICIES]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(POLICIES)}")
    return names


@click.command(help=__doc__)
@click.option("--engines", default="1,2,4,8,16,32,64", callback=_numbers, help="Numbers of engines.")
@click.option("--policies", default=",".join(POLICIES), callback=_names)
@click.option("--gateways", default=1, help="More than one: each learns of the others' requests once a second.")
@click.option(
    "--utilisation", default=Plan.utilisation, help="Arrivals, by the most that engines with ideal caches do."
)
@click.option("--load-bound", default=Plan.load_bound, help="The setting load_bound.")
@click.option("--prompts", default=Traffic.prompts, help="Different system prompts.")
@click.option("--prompt-tokens", default=Traffic.prompt_tokens, help="Their mean length.")
@click.option("--seconds", default=Plan.seconds, help="Simulated and measured.")
@click.option("--warm-up", default=Plan.warm_up, help="Seconds before that.")
@click.option("--seed", default=Plan.seed)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Writes the figures there.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draws them there (PNG).")
def main(
    engines: list[int],
    policies: list[str],
    prompts: int,
    prompt_tokens: int,
    json_path: Path | None,
    plot_path: Path | None,
    **of_plan: float,
) -> None:
    if plot_path:
        _require_matplotlib()
    traffic = Traffic(prompts=prompts, prompt_tokens=prompt_tokens)
    rows = []
    click.echo(_HEAD + "\n|" + "---|" * (_HEAD.count("|") - 1))
    for number in engines:
        for policy in policies:
            figures = simulated(Plan(number, traffic=traffic, **of_plan), policy)  # type: ignore[arg-type]
            rows.append((number, policy, figures))
            click.echo(line(number, policy, figures))
    click.echo("* misses a goal")
    if json_path:
        told = [{"engines": number, "policy": policy, **asdict(figures)} for number, policy, figures in rows]
        json_path.write_text(json.dumps(told, indent=1))
    if plot_path:
        plot(plot_path, rows)


if __name__ == "__main__":
    main()
