"""What a soak sees of the gateway over time, and whether it is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

MIB = 1 << 20

#: Gauges that are zero when nothing goes on.
IN_FLIGHT = (
    "gemma_gateway_requests_in_flight",
    "gemma_gateway_requests_waiting",
    "gemma_gateway_body_bytes_in_flight",
    "gemma_gateway_media_bytes_in_flight",
    "gemma_gateway_media_decodes_waiting",
)
_MEMORY, _FILES = "process_resident_memory_bytes", "process_open_fds"


@dataclass(frozen=True)
class Sample:
    """One look at the gateway's metrics. `seconds` since the start; the counts are the client's."""

    seconds: float
    rss_bytes: float
    open_fds: float
    in_flight: dict[str, float]
    sent: int = 0
    complete: int = 0
    aborted: int = 0
    failed: int = 0

    def line(self) -> str:
        """For a terminal."""
        counts = f"sent {self.sent}  complete {self.complete}  aborted {self.aborted}  failed {self.failed}"
        memory = f"rss {self.rss_bytes / MIB:7.1f} MiB  fds {self.open_fds:4.0f}"
        return f"{self.seconds:6.0f} s  {memory}  in flight {self.in_flight[IN_FLIGHT[0]]:3.0f}  {counts}"


@dataclass(frozen=True)
class Bounds:
    """What a soak puts up with. Growth is that of a line fitted to the second half, over that half."""

    growth_mib: float
    growth_fds: float
    failed_percent: float


@dataclass(frozen=True)
class Line:
    """A fitted line: value = start + per_second * seconds."""

    start: float
    per_second: float

    def at(self, seconds: float) -> float:
        """Its value there."""
        return self.start + self.per_second * seconds


@dataclass(frozen=True)
class Verdict:
    """How a soak went; `faults` is empty if it went well."""

    growth_mib: float
    mib_per_hour: float
    growth_fds: float
    left_in_flight: dict[str, float]
    faults: tuple[str, ...]


def read(metrics: str) -> dict[str, float]:
    """What is watched, by series. Raises KeyError for a series that is absent."""
    values = {
        sample.name: sample.value for family in text_string_to_metric_families(metrics) for sample in family.samples
    }
    return {name: values[name] for name in (_MEMORY, _FILES, *IN_FLIGHT)}


def sample(seconds: float, metrics: str, **counts: int) -> Sample:
    """From the text of /metrics."""
    seen = read(metrics)
    return Sample(seconds, seen[_MEMORY], seen[_FILES], {name: seen[name] for name in IN_FLIGHT}, **counts)


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """The first is for caches, pools and code to warm up in."""
    middle = (samples[0].seconds + samples[-1].seconds) / 2
    return [seen for seen in samples if seen.seconds >= middle]


def fit(samples: Sequence[Sample], field: str) -> Line:
    """Least squares; flat for fewer than two samples."""
    values = [getattr(seen, field) for seen in samples]
    if len(samples) < 2:
        return Line(values[0], 0.0)
    per_second, start = np.polyfit([seen.seconds for seen in samples], values, 1)
    return Line(float(start), float(per_second))


def judge(samples: Sequence[Sample], after: Sample, bounds: Bounds) -> Verdict:
    """`samples` under load, `after` once all answers had the time to end."""
    half = second_half(samples)
    length = half[-1].seconds - half[0].seconds
    slope = fit(half, "rss_bytes").per_second / MIB
    files = fit(half, "open_fds").per_second * length
    left = {name: value for name, value in after.in_flight.items() if value}
    faults = [
        (slope * length > bounds.growth_mib, f"memory grew by {slope * length:.1f} MiB in the second half"),
        (files > bounds.growth_fds, f"open files grew by {files:.0f} in the second half"),
        (bool(left), f"left in flight: {left}"),
        (after.failed > after.sent * bounds.failed_percent / 100, f"{after.failed} of {after.sent} requests failed"),
        (after.complete == 0, "no request was completed"),
    ]
    return Verdict(slope * length, slope * 3600, files, left, tuple(text for wrong, text in faults if wrong))
