"""The figures of a run: counts, percentiles, tokens per second, and goodput under an SLO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from loadtest.deployment.records import Outcome
from loadtest.deployment.scenario import Slo


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True)
class Goodput:
    """Requests that succeeded within the SLO: how many, per second, and of all in percent."""

    requests: int
    per_second: float
    percent: float


@dataclass(frozen=True)
class Figures:
    """Of some requests."""

    requests: int
    errors: Mapping[str, int]
    """How many by kind."""
    seconds: float
    """From the first request to the end of the last answer."""
    ttft_ms: Percentiles
    itl_ms: Percentiles
    """Between events of a stream, all streams together."""
    tpot_ms: Percentiles
    """Per request: its mean time per token after the first."""
    e2e_ms: Percentiles
    late_ms: Percentiles
    """How late requests were sent: more than a few milliseconds, and the machine that measures is overloaded."""
    output_tokens_per_second: float
    goodput: Goodput


def figures(outcomes: Sequence[Outcome], seconds: float, slo: Slo) -> Figures:
    """Of at least one request."""
    answered = [outcome for outcome in outcomes if outcome.error is None]
    good = sum(is_good(outcome, slo) for outcome in outcomes)
    return Figures(
        requests=len(outcomes),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error is not None).most_common()),
        seconds=seconds,
        ttft_ms=percentiles(outcome.ttft_ms for outcome in answered),
        itl_ms=percentiles(gap for outcome in answered for gap in outcome.gaps_ms),
        tpot_ms=percentiles(time for outcome in answered if (time := outcome.tpot_ms) is not None),
        e2e_ms=percentiles(outcome.e2e_ms for outcome in answered),
        late_ms=percentiles(outcome.late_ms for outcome in outcomes),
        output_tokens_per_second=sum(outcome.output_tokens for outcome in answered) / seconds,
        goodput=Goodput(good, good / seconds, 100 * good / len(outcomes)),
    )


def by_kind(outcomes: Sequence[Outcome], seconds: float, slo: Slo) -> dict[str, Figures]:
    """The same for each kind of request."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    return {kind: figures([o for o in outcomes if o.kind == kind], seconds, slo) for kind in kinds}


def length(outcomes: Sequence[Outcome]) -> float:
    """Seconds that one run took, at least a millisecond."""
    return max(max(o.ended for o in outcomes) - min(o.begun for o in outcomes), 0.001)


def is_good(outcome: Outcome, slo: Slo) -> bool:
    """Whether it succeeded within the SLO. One token has no time per token, and keeps to any."""
    if outcome.error is not None:
        return False
    took = ((outcome.ttft_ms, slo.ttft_ms), (outcome.tpot_ms, slo.tpot_ms), (outcome.e2e_ms, slo.e2e_ms))
    return all(bound is None or time is None or time <= bound for time, bound in took)


def percentiles(times: Iterable[float]) -> Percentiles:
    """Interpolated between neighbours."""
    sample = np.fromiter(times, float)
    if not sample.size:
        return Percentiles(None, None, None)
    p50, p90, p99 = (float(value) for value in np.percentile(sample, (50, 90, 99)))
    return Percentiles(p50, p90, p99)


def differences(gateway: Figures, direct: Figures) -> dict[str, dict[str, float | None]]:
    """Gateway minus direct, of the times. Both are percentiles of their own run, not of pairs of requests."""
    return {name: _minus(getattr(gateway, name), getattr(direct, name)) for name in TIMES}


#: The fields of Figures that are times.
TIMES = tuple(field.name for field in fields(Figures) if field.name.endswith("_ms") and field.name != "late_ms")


def _minus(left: Percentiles, right: Percentiles) -> dict[str, float | None]:
    pairs = zip(asdict(left).items(), asdict(right).values(), strict=True)
    return {name: None if a is None or b is None else a - b for (name, a), b in pairs}


def document(measured: Mapping[str, Figures], kinds: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    """For JSON."""
    told: dict[str, Any] = {
        name: {**asdict(whole), "by_kind": {kind: asdict(part) for kind, part in kinds[name].items()}}
        for name, whole in measured.items()
    }
    if measured.keys() >= {"gateway", "direct"}:
        told["gateway_minus_direct"] = differences(measured["gateway"], measured["direct"])
    return told
