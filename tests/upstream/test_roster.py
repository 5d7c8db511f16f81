"""Who of a pool can take requests is decided by health first, then by failures, then by load."""

from __future__ import annotations

import pytest

from gateway.settings import EngineSettings
from gateway.upstream.replica import Replica
from gateway.upstream.roster import Roster, usable

SETTINGS = EngineSettings.model_validate({"url": "http://127.0.0.1:1", "ejection": {"failures": 1, "seconds": 5}})

NOW = 100.0


def replica(state: str) -> Replica:
    """One that is `ready`, `down` or `new`, and on top of that `ejected`, `busy`, or `tried` once its time was over."""
    made = Replica(f"http://{state}", SETTINGS)
    made.healthy = {"ready": True, "down": False, "new": None}[state.split("-")[0]]
    if "ejected" in state or "tried" in state:
        made.ejection.failed(1.0 if "tried" in state else NOW)
    if "tried" in state:
        made.ejection.begin_trial(NOW)
    if "busy" in state:
        made.busy(NOW, b"9")
    return made


TABLE = [
    (["ready", "down", "new"], ["ready"]),
    (["down", "new"], ["new"]),
    (["down"], []),
    ([], []),
    (["ready", "ready-ejected", "ready-busy"], ["ready"]),
    (["ready-ejected", "ready-busy"], ["ready-busy"]),
    (["ready-ejected", "ready-ejected-busy", "down"], ["ready-ejected", "ready-ejected-busy"]),
    (["ready-ejected", "new"], ["ready-ejected"]),
    (["ready", "ready-tried"], ["ready"]),
    (["ready-tried"], ["ready-tried"]),
    (["new-busy", "new"], ["new"]),
]


@pytest.mark.parametrize(("states", "expected"), TABLE)
def test_the_best_there_are_get_the_requests(states: list[str], expected: list[str]) -> None:
    assert [each.name for each in usable([replica(state) for state in states], NOW + 1)] == expected


def roster(*states: str) -> Roster:
    made = Roster(lambda: None)
    made.set(map(replica, states))
    return made


def test_no_choice_is_made_where_there_is_none() -> None:
    only = roster("ready", "down").only

    assert only is not None
    assert only.replica.name == "ready"
    assert roster("ready", "ready-2").only is None
    assert roster("down").only is None


def test_replicas_are_in_a_stable_order() -> None:
    assert list(roster("ready-b", "ready-a").replicas) == ["http://ready-a", "http://ready-b"]


def test_model_is_looked_for_where_it_is_listed_even_if_that_is_away() -> None:
    made = roster("ready-a", "ready-b", "down")
    for each, models in zip(made.replicas.values(), ({"away"}, {"here"}, None), strict=True):
        each.models = frozenset(models) if models else None

    listed = {model: [each.name for each in made.listing(model)] for model in ("here", "away", "nowhere", None)}

    everybody = ["ready-a", "ready-b"]
    assert listed == {"here": ["ready-a"], "away": [], "nowhere": everybody, None: everybody}


def test_lists_of_models_are_bounded() -> None:
    made = roster("ready-a", "ready-b")
    for number in range(1000):
        made.listing(str(number))

    assert len(made._lists) == 256
