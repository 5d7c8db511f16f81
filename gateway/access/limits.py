"""What limits there are, and what clients are told of them: the x-ratelimit-* headers, the refusals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gateway.access.windows import SLOTS
from gateway.errors import QuotaTooSmallError, RateLimitError
from gateway.settings import Limits

Kind = Literal["requests", "tokens"]
Headers = list[tuple[bytes, bytes]]

#: What remains, the limit, and the microseconds until all of it is free.
Standing = tuple[int, int, int]

#: Nobody knows when a request ends. Milliseconds.
RETRY_PLACES = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that has limits: `id` tells it apart, `what` is its name in messages, such as `this caller`.

    Requests should bring the same `limits` object each time, as long as they are the same: it is then known at once.
    """

    id: str
    what: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of limit over a window. `field` is its name in `Limits`, `name` in messages; `slot` is in microseconds."""

    field: str
    short: str
    name: str
    kind: Kind
    slot: int


def _rule(field: str, name: str, short: str, kind: Kind, seconds: int) -> Rule:
    return Rule(field, short, f"{name} ({short.upper()})", kind, seconds * 1_000_000 // SLOTS)


RULES: tuple[Rule, ...] = (
    _rule("requests_per_minute", "requests per minute", "rpm", "requests", 60),
    _rule("tokens_per_minute", "tokens per minute", "tpm", "tokens", 60),
    _rule("tokens_per_day", "tokens per day", "tpd", "tokens", 24 * 60 * 60),
)


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit over a window that a request falls under."""

    subject: Subject
    rule: Rule
    limit: int


def meters(subjects: Iterable[Subject], rules: Sequence[Rule]) -> list[Meter]:
    """All limits over windows that a request falls under."""
    return [
        Meter(subject, rule, limit)
        for subject in subjects
        for rule in rules
        if (limit := getattr(subject.limits, rule.field)) is not None
    ]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a limit stands. `retry`: milliseconds until what was requested fits. `reset`: microseconds until all is free.

    `windowed`: it is a limit over a window, which headers tell of; not one on requests at once.
    """

    what: str
    name: str
    kind: Kind
    limit: int
    used: int
    requested: int
    retry: int
    reset: int = 0
    windowed: bool = True

    @classmethod
    def of(cls, meter: Meter, used: int, requested: int, wait: int, reset: int) -> Reading:
        """That of a window; `wait` in microseconds until what was requested fits."""
        # One microsecond more than the wait, then rounded up: clocks are read in floating point.
        retry = wait // 1000 + 1 if wait else 0
        rule = meter.rule
        return cls(meter.subject.what, rule.name, rule.kind, meter.limit, used, requested, retry, reset)

    @classmethod
    def places(cls, subject: Subject, limit: int, used: int) -> Reading:
        """That of a limit on requests at once."""
        retry = RETRY_PLACES if used >= limit else 0
        return cls(subject.what, "requests at once", "requests", limit, used, 1, retry, windowed=False)

    def standing(self) -> Standing:
        """What remains, the limit, and `reset`."""
        return self.limit - self.used, self.limit, self.reset


def refusal(readings: Sequence[Reading]) -> RateLimitError:
    """The error for a request that did not fit, which tells of the limit that keeps it waiting longest."""
    worst = max(readings, key=lambda reading: reading.retry)
    # What fits at last, as time passed between the refusal and the reading, fits at once.
    retry = max(worst.retry, 1)
    return RateLimitError(
        f"Rate limit reached for {worst.what} on {worst.name}: limit {worst.limit}, used {worst.used},"
        f" requested {worst.requested}. Please try again in {duration(retry)}.",
        kind=worst.kind,
        retry_after=retry / 1000,
        limits=headers(*_standings(readings)),
    )


def check_size(limited: Iterable[Meter], tokens: int) -> None:
    """Raises QuotaTooSmallError where `tokens` alone are more than a limit."""
    for meter in limited:
        if meter.rule.kind == "tokens" and tokens > meter.limit:
            raise QuotaTooSmallError(
                f"The request may take {tokens} tokens, more than the limit of {meter.subject.what} on"
                f" {meter.rule.name}, {meter.limit}, ever allows. Ask for less by a smaller max_tokens, or shorten the"
                " prompt.",
                param="max_tokens",
            )


def _standings(readings: Sequence[Reading]) -> tuple[Standing | None, Standing | None]:
    """How requests and tokens stand: of all limits of a kind the one with the least left."""
    windowed = [reading for reading in readings if reading.windowed]
    requests = min((reading.standing() for reading in windowed if reading.kind == "requests"), default=None)
    return requests, min((reading.standing() for reading in windowed if reading.kind == "tokens"), default=None)


def head_of(readings: Sequence[Reading]) -> bytes:
    """OpenAI's headers as lines."""
    return head(*_standings(readings))


def headers(requests: Standing | None, tokens: Standing | None) -> Headers:
    """OpenAI's headers. Of each kind of limit: what remains, the limit, and the microseconds until all is free.

    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    found: Headers = []
    if requests is not None:
        remaining, limit, reset = requests
        found = [
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % remaining if remaining > 0 else b"0"),
            (b"x-ratelimit-reset-requests", _reset(reset)),
        ]
    if tokens is not None:
        remaining, limit, reset = tokens
        found += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % remaining if remaining > 0 else b"0"),
            (b"x-ratelimit-reset-tokens", _reset(reset)),
        )
    return found


def head(requests: Standing | None, tokens: Standing | None) -> bytes:
    """The same as lines of a reply's head. Every reply has them: one piece of formatting for each kind."""
    lines = b""
    if requests is not None:
        remaining, limit, reset = requests
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
            b"x-ratelimit-reset-requests: %b\r\n"
        ) % (limit, remaining if remaining > 0 else 0, _reset(reset))
    if tokens is not None:
        remaining, limit, reset = tokens
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
        ) % (limit, remaining if remaining > 0 else 0, _reset(reset))
    return lines


def _reset(microseconds: int) -> bytes:
    """Rounded up, to tenths of seconds where it is one or more: there are few of those, so that they are remembered."""
    milliseconds = -(-microseconds // 1000)
    return _told(milliseconds if milliseconds < 1000 else -(-milliseconds // 100) * 100)


@lru_cache(4096)
def _told(milliseconds: int) -> bytes:
    return duration(milliseconds).encode()


def duration(milliseconds: int) -> str:
    """As OpenAI writes it: `17ms`, `12.3s`, `6m0s`, `23h59m1s`; rounded up to seconds from a minute on."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        seconds, rest = divmod(milliseconds, 1000)
        return f"{seconds}.{rest:03}".rstrip("0").rstrip(".") + "s"
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"
