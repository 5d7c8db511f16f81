"""The distribution of the times, as a picture. Needs matplotlib, from the extra `loadtest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from loadtest.deployment.records import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INSTALL = "plots need matplotlib:\n  pip install 'gemma-gateway[loadtest]'"


def blank(rows: int, columns: int) -> Figure:
    """Raises click.ClickException where matplotlib is absent."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException(_INSTALL) from error
    figure = Figure(figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
    figure.subplots(rows, columns)
    return figure


def draw(target: Path, title: str, measured: Mapping[str, Sequence[Outcome]]) -> None:
    """Writes a PNG: how many requests took at most so long, and how E2E went over the run."""
    figure = blank(2, 2)
    figure.suptitle(title)
    first, second, third, fourth = figure.axes
    for name, outcomes in measured.items():
        answered = [outcome for outcome in outcomes if outcome.error is None]
        _cumulative(first, name, [outcome.ttft_ms for outcome in answered])
        _cumulative(second, name, [gap for outcome in answered for gap in outcome.gaps_ms])
        _cumulative(third, name, [outcome.e2e_ms for outcome in answered])
        _over_time(fourth, name, outcomes)
    _label(first, "time to first token, ms", "share of requests")
    _label(second, "between events of a stream, ms", "share of events")
    _label(third, "end to end, ms", "share of requests")
    _label(fourth, "begun after, s", "end to end, ms; x: error")
    figure.savefig(target, format="png", dpi=110)


def _cumulative(axes: Axes, name: str, times: Sequence[float]) -> None:
    axes.step(np.sort(times), np.arange(1, len(times) + 1) / max(len(times), 1), where="post", label=name)


def _over_time(axes: Axes, name: str, outcomes: Sequence[Outcome]) -> None:
    start = min(outcome.begun for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.error is None]
    dots = axes.plot([o.begun - start for o in answered], [o.e2e_ms for o in answered], ".", markersize=4, label=name)
    failed = [outcome.begun - start for outcome in outcomes if outcome.error is not None]
    axes.plot(failed, np.zeros(len(failed)), "x", color=dots[0].get_color())


def _label(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend()
