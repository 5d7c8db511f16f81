"""The policies beside the default do what their names say."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.settings.engines import Policy
from gateway.upstream.policies import NO_HINTS, Hints, policy
from tests.upstream.policies.replicas import keys, replicas


@pytest.mark.parametrize("kind", Policy)
def test_single_replica_is_taken_whatever_its_load(kind: Policy) -> None:
    pool = replicas(1000)

    choice = policy(kind)(pool, Hints((1, 2), b"s"), 1.25)

    assert choice.replica is pool[0]
    assert choice.reason == "the only replica"


def test_round_robin_takes_each_in_turn() -> None:
    choose = policy(Policy.ROUND_ROBIN)
    pool = replicas(9, 0, 0)

    assert [pool.index(choose(pool, NO_HINTS, 1.25).replica) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_pools_do_not_share_a_turn() -> None:
    pool = replicas(0, 0)

    assert [pool.index(policy(Policy.ROUND_ROBIN)(pool, NO_HINTS, 1.25).replica) for _ in range(2)] == [0, 0]


def test_least_loaded_is_taken() -> None:
    choice = policy(Policy.LEAST_REQUESTS)(replicas(3, 1, 2), Hints((1, 2)), 1.25)

    assert (choice.replica.load, choice.reason) == (1, "least loaded of 3")


def test_equally_loaded_take_turns() -> None:
    choose = policy(Policy.LEAST_REQUESTS)
    pool = replicas(1, 0, 0, 0)

    found = Counter(choose(pool, NO_HINTS, 1.25).replica.name for _ in range(9))

    assert sorted(found.values()) == [3, 3, 3]
    assert pool[0].name not in found


def test_session_keeps_its_replica_whatever_it_asks() -> None:
    choose = policy(Policy.SESSION)
    pool = replicas(*[5.0] * 8)

    assert len({choose(pool, Hints((key,), b"mine"), 1.25).replica.name for key in keys(20)}) == 1


def test_sessions_are_spread() -> None:
    choose = policy(Policy.SESSION)
    pool = replicas(*[5.0] * 4)

    found = Counter(choose(pool, Hints((), b"%d" % at), 1.25).replica.name for at in range(2000))

    assert len(found) == 4
    assert all(400 < count < 600 for count in found.values())


def test_session_moves_on_from_a_loaded_replica() -> None:
    choose = policy(Policy.SESSION)
    pool = replicas(*[8.0] * 4)
    home = choose(pool, Hints((), b"mine"), 1.25).replica
    home.load = 30

    choice = choose(pool, Hints((), b"mine"), 1.25)

    assert choice.replica is not home
    assert choice.reason.startswith(f"spilled from {home.name}")


def test_without_a_session_the_beginning_counts() -> None:
    pool = replicas(*[5.0] * 8)

    for conversation in keys(20):
        hints = Hints((1, conversation))
        assert policy(Policy.SESSION)(pool, hints, 1.25) == policy(Policy.AFFINITY)(pool, hints, 1.25)
