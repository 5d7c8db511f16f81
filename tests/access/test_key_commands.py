"""What the options of `keys create` and `keys rotate` understand."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from gateway import key_commands

CONTEXT = click.Context(key_commands.create)
OPTION = CONTEXT.command.params[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("007m", timedelta(minutes=7)),
        ("0h", timedelta()),
        ("99999d", timedelta(days=99999)),
        ("0000000001d", timedelta(days=1)),
    ],
)
def test_span_is_read_in_days_hours_or_minutes(text: str, expected: timedelta) -> None:
    assert key_commands.span(text) == expected


@pytest.mark.parametrize(("text", "longest"), [("99999999d", "99999d"), ("100000h", "99999h"), ("1" * 5000 + "m", "m")])
def test_span_that_is_too_long_is_told_so_with_the_longest(text: str, longest: str) -> None:
    with pytest.raises(click.BadParameter, match=rf"is too long; the longest is \d*{longest}"):
        key_commands.span(text)


@pytest.mark.parametrize("text", ["90", "-1d", "1.5h", "d", "", "1d ", "٣d"])
def test_what_is_no_span_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must be a number of days, hours or minutes, such as 90d"):
        key_commands.span(text)


def test_metadata_given_twice_are_refused_rather_than_lost() -> None:
    assert key_commands.pairs(CONTEXT, OPTION, ("a=1", "b=1=2")) == {"a": "1", "b": "1=2"}
    with pytest.raises(click.BadParameter, match="'a' is given twice"):
        key_commands.pairs(CONTEXT, OPTION, ("a=1", "b=2", "a=2"))
