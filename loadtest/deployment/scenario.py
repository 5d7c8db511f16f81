"""What a scenario file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_LARGEST_SIDE = 8192
_LONGEST_CLIP = 600
_MOST_REQUESTS = 100_000


def _both_ends(value: Any) -> Any:
    """A single number is a span of one value."""
    return value if isinstance(value, list | tuple) else (value, value)


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if not 0 < span[0] <= span[1]:
        raise ValueError("a span is a number above 0, or [least, most]")
    return span


#: `5`, or `[2, 8]`: evenly between the two, both included.
Span = Annotated[tuple[int, int], BeforeValidator(_both_ends), AfterValidator(_ordered)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
Milliseconds = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pictures(_Part):
    """Generated pictures in each request of a kind."""

    count: Annotated[int, Field(ge=1, le=32)] = 1
    width: Span
    height: Span
    format: Literal["jpeg", "png", "webp"] = "jpeg"

    @model_validator(mode="after")
    def _sides(self) -> Pictures:
        if max(*self.width, *self.height) > _LARGEST_SIDE:
            raise ValueError(f"a side has at most {_LARGEST_SIDE} pixels")
        return self


class Clip(_Part):
    """A generated clip in each request of a kind."""

    seconds: Span
    hertz: Literal[8000, 16_000, 24_000, 44_100, 48_000] = 16_000
    format: Literal["wav", "mp3"] = "wav"

    @model_validator(mode="after")
    def _length(self) -> Clip:
        if self.seconds[1] > _LONGEST_CLIP:
            raise ValueError(f"a clip has at most {_LONGEST_CLIP} s")
        return self


class Kind(_Part):
    """One kind of request and its share of the mix."""

    name: Name
    weight: Annotated[float, Field(gt=0)] = 1
    words: Span
    """Of the prompt."""
    output_tokens: Span
    """Sent as `max_tokens`."""
    pictures: Pictures | None = None
    clip: Clip | None = None


class Slo(_Part):
    """What a good request keeps to; what is left out does not matter. Milliseconds."""

    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    e2e_ms: Milliseconds | None = None


class Scenario(_Part):
    """A whole file."""

    description: str = ""
    rate: Annotated[float, Field(gt=0, le=10_000)]
    """Arrivals per second, whether or not earlier requests have been answered."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    requests: Annotated[int, Field(ge=1, le=_MOST_REQUESTS)]
    warm_up: Annotated[int, Field(ge=0, le=1000)] = 0
    """Requests before that, one after the other, each kind in turn. They do not count."""
    seed: int = 1
    timeout_seconds: Annotated[float, Field(gt=0)] = 120
    full_length: bool = True
    """Has vLLM go on to `max_tokens` (`ignore_eos`), so that each run generates the same."""
    slo: Slo = Slo()
    mix: Annotated[tuple[Kind, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> Scenario:
        names = [kind.name for kind in self.mix]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"mix has two kinds called {', '.join(sorted(twice))}")
        return self


def read(path: Path) -> Scenario:
    """Reads a file. Raises click.ClickException that names the fields which are wrong."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise click.ClickException(f"{path} is no mapping; see docs/load-testing.md for an example")
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        lines = [f"  {_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
        raise click.ClickException("\n".join([f"{path} is not a scenario:", *lines])) from error


def _place(location: tuple[int | str, ...]) -> str:
    """As one would write it: mix[0].words."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return place.removeprefix(".") or "the file"
