"""Requests that begin alike meet on a replica, as long as that is not too loaded."""

from __future__ import annotations

from collections import Counter

from gateway.settings.engines import Policy
from gateway.upstream.policies import NO_HINTS, Hints, policy
from gateway.upstream.policies.affinity import Affinity
from tests.upstream.policies.replicas import keys, replicas


def test_all_turns_of_a_conversation_meet() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(*[5.0] * 8)
    for conversation in keys(100):
        choose(pool, Hints((1, conversation)), 1.25)

    for conversation in keys(20):
        hints = Hints((1, conversation))
        assert len({choose(pool, hints, 1.25).replica.name for _ in range(5)}) == 1


def test_gateways_agree() -> None:
    pool = replicas(*[5.0] * 8)

    for conversation in keys(20):
        hints = Hints((1, conversation))
        assert policy(Policy.AFFINITY)(pool, hints, 1.25) == policy(Policy.AFFINITY)(pool, hints, 1.25)


def test_conversations_are_shared_out_evenly() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(*[5.0] * 8)

    found = Counter(choose(pool, Hints((conversation,)), 1.25).replica.name for conversation in keys(8000))

    assert len(found) == 8
    assert all(850 < count < 1150 for count in found.values())


def test_only_conversations_of_a_replica_that_leaves_move() -> None:
    choose = Affinity()
    pool = replicas(*[5.0] * 8)
    hints = [Hints((conversation,)) for conversation in keys(500)]
    before = [choose(pool, each, 1.25).replica.name for each in hints]
    gone = pool.pop(3)

    after = [choose(pool, each, 1.25).replica.name for each in hints]

    assert {was for was, now in zip(before, after, strict=True) if was != now} == {gone.name}


def test_rare_system_prompt_stays_on_one_replica_and_a_frequent_one_is_spread() -> None:
    choose = Affinity()
    pool = replicas(*[5.0] * 16)
    rare, frequent = set(), set()
    for at, conversation in enumerate(keys(4000)):
        if at % 500 == 499:
            rare.add(choose(pool, Hints((1, conversation)), 1.25).replica.name)
        elif at % 2:
            frequent.add(choose(pool, Hints((2, conversation)), 1.25).replica.name)
        else:
            choose(pool, Hints((1000 + conversation, conversation)), 1.25)

    assert len(rare) == 1
    assert len(frequent) == 16


def test_rare_image_stays_on_one_replica_even_under_a_frequent_system_prompt() -> None:
    choose = Affinity()
    pool = replicas(*[5.0] * 16)
    for conversation in keys(3000):
        choose(pool, Hints((2, conversation)), 1.25)

    found = {choose(pool, Hints((2, 77, question)), 1.25).replica.name for question in keys(5, seed=1)}

    assert len(found) == 1


def test_conversation_moves_on_from_a_loaded_home_always_to_the_same_replica() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(*[8.0] * 4)
    hints = Hints((1, 2))
    home = choose(pool, hints, 1.25).replica
    home.load = 20

    chosen = [choose(pool, hints, 1.25) for _ in range(5)]

    assert {choice.replica.name for choice in chosen} == {chosen[0].replica.name}
    assert chosen[0].replica is not home
    assert chosen[0].reason == f"spilled from {home.name} (load 20 of bound 15)"


def test_nearly_idle_home_keeps_its_conversations() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(*[0.0] * 64)
    hints = Hints((2,))
    home = choose(pool, hints, 1.25).replica
    home.load = 3

    assert choose(pool, hints, 1.25).replica is home


def test_no_replica_gets_beyond_the_bound_even_if_all_want_the_same() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(*[0.0] * 8)
    for _ in range(400):
        choose(pool, Hints((1, 2)), 1.25).replica.load += 1

    assert sum(replica.load for replica in pool) == 400
    assert max(replica.load for replica in pool) <= 1.25 * 400 / 8 + 1


def test_bound_of_one_still_finds_a_replica() -> None:
    choose = policy(Policy.AFFINITY)
    pool = replicas(7.5, 7.5, 7.5)

    assert choose(pool, Hints((1, 2)), 1.0).replica in pool


def test_request_that_tells_nothing_goes_to_the_least_loaded() -> None:
    choice = policy(Policy.AFFINITY)(replicas(5, 2, 7), NO_HINTS, 1.25)

    assert (choice.replica.load, choice.reason) == (2, "least loaded of 3")
