"""For how long a body may be used again, by what its server said."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.media.freshness import Stored, renewed, storable

#: Seconds since 1970, and of the event loop's clock.
CLOCK = 1_000_000_000.0
NOW = 5_000.0


def date(seconds: float) -> str:
    """A date that many seconds from now."""
    return formatdate(CLOCK + seconds, usegmt=True)


def keep(headers: dict[str, str], took: float = 0) -> Stored | None:
    return storable(b"data", headers, NOW - took, NOW, CLOCK)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "MAX-AGE=60"}, 60),
        ({"cache-control": 'public, max-age="60"'}, 60),
        ({"cache-control": "max-age=60, max-age=90"}, 60),
        ({"cache-control": "max-age=60, s-maxage=30"}, 30),
        ({"cache-control": "s-maxage=90, max-age=60, proxy-revalidate"}, 90),
        ({"cache-control": "max-age=60", "age": "20"}, 40),
        ({"cache-control": "max-age=60", "date": date(-20)}, 40),
        ({"cache-control": "max-age=60", "date": date(-10), "age": "20"}, 40),
        ({"cache-control": "max-age=60", "date": date(+20)}, 60),
        ({"cache-control": "max-age=60", "date": "nonsense", "age": "nonsense"}, 60),
        ({"cache-control": "max-age=60", "expires": date(+5)}, 60),
        ({"expires": date(+60)}, 60),
        ({"expires": date(+60), "date": date(+30)}, 30),
        ({"expires": date(+40), "date": date(-20)}, 40),
        ({"cache-control": "public", "expires": date(+60)}, 60),
        ({"cache-control": "max-age=60", "vary": "Accept-Encoding, Origin"}, 60),
        ({"cache-control": "max-age=99999999999999999999"}, 2**31),
        ({"cache-control": 'extension="private, no-store", max-age=60'}, 60),
    ],
)
def test_a_body_is_fresh_for_as_long_as_is_said(headers: dict[str, str], seconds: float) -> None:
    stored = keep(headers)
    assert stored is not None
    assert stored.expires - NOW == seconds


def test_the_time_that_an_answer_took_is_age() -> None:
    stored = keep({"cache-control": "max-age=60", "age": "20"}, took=5)
    assert stored is not None
    assert stored.expires - NOW == 35


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"last-modified": "\u00fc"},
        {"etag": ""},
        {"cache-control": "max-age=-1"},
        {"cache-control": "max-age=1.5"},
        {"cache-control": "max-age"},
        {"cache-control": "max-age=\u0663"},
        {"cache-control": "max-age=60, no-cache"},
        {"cache-control": "max-age=60", "age": "60"},
        {"expires": "0"},
        {"expires": date(-1)},
        {"expires": "Thu, 99 Dec 99999 99:99:99 GMT"},
        {"cache-control": "no-store", "etag": '"a"'},
        {"cache-control": "No-Store", "etag": '"a"'},
        {"cache-control": 'private="set-cookie", max-age=60'},
        {"cache-control": "max-age=60", "vary": "Accept, *"},
        {"cache-control": "max-age=60", "set-cookie": "a=b"},
    ],
)
def test_what_may_not_be_used_again_is_not_kept(headers: dict[str, str]) -> None:
    assert keep(headers) is None


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        ({"etag": '"a"'}, {"If-None-Match": '"a"'}),
        ({"last-modified": date(-9)}, {"If-Modified-Since": date(-9)}),
        ({"etag": '"a"', "last-modified": date(-9)}, {"If-None-Match": '"a"', "If-Modified-Since": date(-9)}),
        ({"etag": '"a"', "last-modified": "\u00fc"}, {"If-None-Match": '"a"'}),
        ({"etag": '"a"', "cache-control": "no-cache, max-age=60"}, {"If-None-Match": '"a"'}),
    ],
)
def test_what_has_a_validator_is_kept_to_be_asked_for_by_it(
    headers: dict[str, str], conditions: dict[str, str]
) -> None:
    stored = keep(headers)
    assert stored is not None
    assert stored.expires <= NOW
    assert stored.conditions() == conditions


def test_a_304_renews_what_it_says_and_leaves_the_rest() -> None:
    stored = keep({"cache-control": "max-age=60", "etag": '"a"', "age": "50", "date": date(-55), "expires": date(+9)})
    assert stored is not None
    again = renewed(stored, {"etag": 'W/"a"', "x-other": "1"}, NOW + 100, NOW + 100, CLOCK + 100)
    assert again is not None
    assert again.body is stored.body
    assert again.expires == NOW + 160
    assert again.conditions() == {"If-None-Match": 'W/"a"'}
    assert renewed(stored, {"cache-control": "no-store"}, NOW, NOW, CLOCK) is None


def test_only_the_fields_that_decide_are_kept_and_they_count_as_bytes() -> None:
    stored = keep({"cache-control": "max-age=60", "x-large": "x" * 10_000})
    assert stored is not None
    assert stored.headers == {"cache-control": "max-age=60"}
    assert 4 < stored.size() < 2_000


@given(
    st.dictionaries(
        st.sampled_from(["cache-control", "age", "date", "expires", "etag", "last-modified", "vary"]), st.text()
    )
)
def test_whatever_a_server_says_can_be_read(headers: dict[str, str]) -> None:
    stored = keep(headers)
    assert stored is None or stored.expires > NOW or stored.conditions()
