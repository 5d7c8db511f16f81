"""How widely a beginning is spread follows its share of the requests."""

from __future__ import annotations

from gateway.upstream.policies.popularity import Popularity
from tests.upstream.policies.replicas import keys


def test_only_beginning_is_soon_everywhere() -> None:
    popularity = Popularity()

    assert [popularity.widths([1], 16) for _ in range(100)][-1] == [16]


def test_first_request_of_all_is_not_taken_for_the_whole_traffic() -> None:
    assert Popularity().widths([1], 4)[0] < 4


def test_request_counts_once_however_many_beginnings_it_has() -> None:
    popularity = Popularity()
    for key in keys(300):
        popularity.widths([1, key], 64)

    assert popularity.widths([1, 5], 64) == [64, 4]


def test_what_is_no_longer_asked_for_narrows_and_is_forgotten() -> None:
    popularity = Popularity()
    for _ in range(100):
        popularity.widths([1], 16)
    for key in keys(35_000):
        popularity.widths([key], 16)

    assert popularity.widths([1], 16)[0] <= 2
    assert len(popularity._counts) < 10_000


def test_width_does_not_follow_every_breath() -> None:
    popularity = Popularity()
    widths = set()
    for round_ in range(40):
        for at, key in enumerate(keys(100, seed=round_)):
            width = popularity.widths([1 if at < 3 + round_ % 2 else key], 16)[0]
            if round_ > 10 and at < 3:
                widths.add(width)

    assert len(widths) == 1
