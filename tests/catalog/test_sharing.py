"""Models share the requests of a name by weight, and each user keeps its own."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import Catalog, Choice, sticky_unit
from gateway.settings import ModelSettings, Sticky, Target

DRAWS = 10_000
NAMES = ("a", "b", "c", "d", "e")
USERS = [f"user-{number}" for number in range(DRAWS)]


def choice(*weights: int, sticky: Sticky = Sticky.NONE) -> Choice:
    targets = tuple(Target(model=name, weight=weight) for name, weight in zip(NAMES, weights, strict=False))
    models = {name: ModelSettings() for name in NAMES}
    return Catalog({"gpt": ModelSettings(targets=targets, sticky=sticky), **models}).resolve("gpt")


def of_users(shared: Choice) -> list[str]:
    return [shared.route(sticky_unit(shared.alias, user)).target for user in USERS]


def moved(before: Choice, after: Choice) -> float:
    """The share of users whose target is another."""
    return sum(a != b for a, b in zip(of_users(before), of_users(after), strict=True)) / DRAWS


weightings = st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any)


@settings(max_examples=15, deadline=None)
@given(weights=weightings, seed=st.integers(0, 2**32))
def test_random_requests_are_shared_by_weight(weights: list[int], seed: int) -> None:
    shared, numbers = choice(*weights), random.Random(seed)

    drawn = [shared.route(numbers.random()).target for _ in range(DRAWS)]

    for name, weight in zip(NAMES, weights, strict=False):
        # Five standard deviations at most: one in two million such checks would fail by chance.
        assert drawn.count(name) / DRAWS == pytest.approx(weight / sum(weights), abs=0.025 if weight else 0)


@settings(max_examples=15, deadline=None)
@given(weights=weightings)
def test_users_are_shared_by_weight_and_keep_their_target(weights: list[int]) -> None:
    targets = of_users(choice(*weights, sticky=Sticky.USER))

    assert of_users(choice(*weights, sticky=Sticky.USER)) == targets
    for name, weight in zip(NAMES, weights, strict=False):
        assert targets.count(name) / DRAWS == pytest.approx(weight / sum(weights), abs=0.025 if weight else 0)


def test_canary_that_grows_from_5_to_10_moves_only_those_users() -> None:
    assert moved(choice(95, 5), choice(90, 10)) == pytest.approx(0.05, abs=0.01)
    # The other weight left as it was: 10 of 105.
    assert moved(choice(95, 5), choice(95, 10)) == pytest.approx(10 / 105 - 0.05, abs=0.01)


def test_users_of_a_canary_stay_with_it_while_it_grows() -> None:
    shares = [of_users(choice(100 - weight, weight)) for weight in (0, 1, 5, 20, 50, 100)]

    for before, after in pairwise(shares):
        assert all(b == "b" for a, b in zip(before, after, strict=True) if a == "b")


def test_weights_in_proportion_are_the_same_shares() -> None:
    assert moved(choice(19, 1), choice(95, 5)) == 0


@given(value=st.text())
def test_sticky_number_is_within_0_and_1_whatever_the_user_is_called(value: str) -> None:
    assert 0 <= sticky_unit("gpt", value) < 1


def test_sticky_number_is_the_same_in_every_gateway() -> None:
    # As first computed: another value would send users elsewhere when gateways are updated.
    assert sticky_unit("gpt", "alice") == 0.5427449587612821


def test_users_of_one_canary_are_not_those_of_every_other() -> None:
    both = [user for user in USERS if sticky_unit("x", user) < 0.1 and sticky_unit("y", user) < 0.1]

    assert len(both) / DRAWS == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [(0.0, "a"), (0.5 - 2**-53, "a"), (0.5, "b"), (0.75 - 2**-53, "b"), (0.75, "d"), (1 - 2**-53, "d")],
)
def test_share_begins_at_its_border_and_one_of_no_weight_has_none(unit: float, expected: str) -> None:
    assert choice(2, 1, 0, 1).route(unit).target == expected


def test_one_weighted_target_leaves_nothing_to_choose() -> None:
    shared = choice(0, 3, 0)

    assert shared.only is not None
    assert {shared.route(unit) for unit in (0.0, 0.4, 0.999)} == {shared.only}
    assert shared.only.target == "b"
    assert choice(1, 1).only is None


def test_choice_tells_by_what_it_is_dealt_out() -> None:
    assert [choice(1, 1, sticky=kind).sticky for kind in Sticky] == list(Sticky)


def test_routes_are_made_once_and_not_for_each_request() -> None:
    shared = choice(1, 1)

    assert shared.route(0.1) is shared.route(0.2)
    assert shared.route(0.1) is not shared.route(0.9)
