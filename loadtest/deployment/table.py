"""The figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from loadtest.deployment.report import TIMES, Figures, differences

_LABELS = {"ttft_ms": "TTFT", "itl_ms": "ITL", "tpot_ms": "TPOT", "e2e_ms": "E2E"}
_ROWS = {"ttft_ms": ("p50", "p90", "p99")}
_TWO = ("p50", "p99")

Row = tuple[str, ...]


def whole(measured: Mapping[str, Figures]) -> str:
    """All requests, a column for each target, and the difference where there are two."""
    columns = list(measured.values())
    rows = [("", *measured), *_counts(columns), *_times(measured), *_rates(columns)]
    if len(columns) == 2:
        rows[0] = (*rows[0], "difference")
    return aligned(rows)


def by_kind(kinds: Mapping[str, Mapping[str, Figures]]) -> str:
    """A line for each kind of request and target."""
    rows: list[Row] = [("kind", "", "requests", "errors", "TTFT p50", "p99", "E2E p50", "p99", "good %")]
    for target, of_target in kinds.items():
        for kind, found in of_target.items():
            times = (found.ttft_ms.p50, found.ttft_ms.p99, found.e2e_ms.p50, found.e2e_ms.p99)
            counts = (str(found.requests), str(sum(found.errors.values())))
            rows.append((kind, target, *counts, *map(_number, times), f"{found.goodput.percent:.1f}"))
    return aligned(sorted(rows[1:]), rows[0])


def aligned(rows: Sequence[Row], head: Row = ()) -> str:
    """The first column to the left, all others to the right."""
    lines = [head, *rows] if head else list(rows)
    wide = max(len(line) for line in lines)
    padded = [(*line, *[""] * (wide - len(line))) for line in lines]
    widths = [max(len(line[column]) for line in padded) for column in range(wide)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in padded
    )


def _counts(columns: Sequence[Figures]) -> Iterator[Row]:
    yield ("requests", *(str(found.requests) for found in columns))
    yield ("errors", *(str(sum(found.errors.values())) for found in columns))
    for kind in sorted({kind for found in columns for kind in found.errors}):
        yield (f"  {kind}", *(str(found.errors.get(kind, 0)) for found in columns))


def _times(measured: Mapping[str, Figures]) -> Iterator[Row]:
    added = differences(measured["gateway"], measured["direct"]) if len(measured) == 2 else None
    for name in TIMES:
        for rank in _ROWS.get(name, _TWO):
            values = [asdict(getattr(found, name))[rank] for found in measured.values()]
            more = [_number(added[name][rank], sign="+")] if added else []
            yield (f"{_LABELS[name]} {rank}, ms", *map(_number, values), *more)


def _rates(columns: Sequence[Figures]) -> Iterator[Row]:
    yield ("output tokens/s", *(f"{found.output_tokens_per_second:.1f}" for found in columns))
    yield ("goodput, requests/s", *(f"{found.goodput.per_second:.2f}" for found in columns))
    yield ("goodput, %", *(f"{found.goodput.percent:.1f}" for found in columns))
    yield ("sent late p99, ms", *(_number(found.late_ms.p99) for found in columns))


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1f}"  # noqa: RUF001  (a dash for what is not there)
