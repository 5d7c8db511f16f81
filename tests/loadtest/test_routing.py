"""The default policy reaches its goals over simulated engines, and the models behind that are sound."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtest.routing import main, reaches_goals, simulated
from loadtest.routing_cache import PrefixCache, Segment
from loadtest.routing_engine import Engine, Request, Speed
from loadtest.routing_simulation import Plan
from loadtest.routing_trace import Trace, Traffic

pytestmark = pytest.mark.slow

Block = tuple[int, int]


class BlockCache:
    """The same cache, block by block, as vLLM has it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[Block, int] = {}
        self.evictable: OrderedDict[Block, None] = OrderedDict()

    def hit(self, chain: list[Segment]) -> int:
        blocks = self.blocks(chain)
        return next((at for at, each in enumerate(blocks) if not self.has(each)), len(blocks))

    def has(self, block: Block) -> bool:
        return block in self.held or block in self.evictable

    def take(self, chain: list[Segment]) -> bool:
        blocks = self.blocks(chain)
        if len(self.held) + sum(each not in self.held for each in blocks) > self.capacity:
            return False
        for each in blocks:
            self.evictable.pop(each, None)
            self.held[each] = self.held.get(each, 0) + 1
        while len(self.held) + len(self.evictable) > self.capacity:
            self.evictable.popitem(last=False)
        return True

    def free(self, chain: list[Segment]) -> None:
        for each in reversed(self.blocks(chain)):
            self.held[each] -= 1
            if not self.held[each]:
                del self.held[each]
                self.evictable[each] = None

    @staticmethod
    def blocks(chain: list[Segment]) -> list[Block]:
        return [(segment.name, at) for segment in chain for at in range(segment.blocks)]


def test_cache_decides_as_one_of_single_blocks() -> None:
    chance = random.Random(5)
    cache, single = PrefixCache(60), BlockCache(60)
    lengths = dict.fromkeys(range(100, 112), 1)
    running: list[list[Segment]] = []
    answers = []
    for _ in range(3000):
        if running and chance.random() < 0.5:
            chain = running.pop(chance.randrange(len(running)))
            cache.free(chain)
            single.free(chain)
            continue
        name = chance.choice([own for own in lengths if all(chain[-1].name != own for chain in running)])
        chain = [Segment(name % 3, 5 + name % 3), Segment(name, lengths[name])]
        answers.append((cache.hit(chain), cache.take(chain)))
        assert answers[-1] == (single.hit(chain), single.take(chain))
        running += [chain] * answers[-1][1]
        # It goes on, or after some turns another one begins.
        length = lengths.pop(name) + chance.randrange(1, 4)
        lengths |= {name: length} if length < 30 else {max(lengths) + 3 + name % 3: 1}

    assert sum(taken for _, taken in answers) > 1000
    assert len(set(answers)) > 20


def test_engine_batches_what_waits_and_ends_each_request_after_its_tokens() -> None:
    ended: list[tuple[int, float]] = []
    engine = Engine(Speed(step=1, token=0, max_running=2))
    for name, answer in enumerate((3, 5, 2)):
        chain = (Segment(name, 4),)
        engine.arrive(Request(chain, 2, answer, 0.0, lambda request, now: ended.append((request.answer, now))))
    now = 0.0
    while seconds := engine.step(now):
        now += seconds

    assert ended == [(3, 3.0), (5, 5.0), (2, 5.0)]
    assert engine.load == 0


def test_prefill_of_what_is_cached_costs_nothing() -> None:
    computed = []
    for name in (1, 2):
        engine = Engine(Speed(step=1, token=0))
        for at, its in enumerate((1, name)):
            engine.arrive(Request((Segment(its, 64),), 64, 1, 0.0, lambda _request, _now: None))
            engine.step(2.0 * at)
            engine.step(2.0 * at + 1)
        computed.append(engine.computed)

    assert computed[1] - computed[0] == 63 * 16


def test_trace_is_the_same_for_the_same_seed() -> None:
    one, same, other = (Trace(Traffic(), seed).conversations(1.0) for seed in (1, 1, 2))
    first = [next(one) for _ in range(20)]

    assert first == [next(same) for _ in range(20)]
    assert first != [next(other) for _ in range(20)]


@pytest.mark.parametrize("gateways", [1, 2])
def test_default_policy_reaches_its_goals(gateways: int) -> None:
    figures = simulated(Plan(8, gateways=gateways, seconds=60, warm_up=120), "affinity")

    assert reaches_goals(figures), figures
    assert figures.requests > 2000


def test_many_large_system_prompts_reach_the_goals_as_well() -> None:
    traffic = Traffic(prompts=400, prompt_tokens=4000)

    assert reaches_goals(simulated(Plan(8, seconds=60, warm_up=120, traffic=traffic), "affinity"))


def test_policies_that_look_at_load_alone_miss_the_caches() -> None:
    figures = {name: simulated(Plan(4, seconds=40, warm_up=80), name) for name in ("power_of_two", "affinity")}

    assert figures["power_of_two"].of_ideal < 0.85
    assert figures["affinity"].wait_p99 < figures["power_of_two"].wait_p99


def run(*options: str) -> str:
    told = CliRunner().invoke(main, ["--seconds", "5", "--warm-up", "5", *options])
    assert told.exit_code == 0, told.output
    return told.output


def test_figures_are_told_and_written(tmp_path: Path) -> None:
    told = run("--engines", "1,2", "--policies", "affinity,random", "--json", str(tmp_path / "figures.json"))

    assert told.count("| affinity") == 2
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [(row["engines"], row["policy"]) for row in written] == [
        (1, "affinity"),
        (1, "random"),
        (2, "affinity"),
        (2, "random"),
    ]


def test_unknown_policy_is_refused_by_name() -> None:
    told = CliRunner().invoke(main, ["--policies", "best"])

    assert told.exit_code == 2
    assert "'best' is none of affinity" in told.output


@pytest.mark.extended
@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_figures_are_drawn(tmp_path: Path) -> None:
    run("--engines", "1,2", "--policies", "affinity", "--plot", str(tmp_path / "figures.png"))

    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_missing_matplotlib_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.routing.find_spec", lambda _name: None)

    told = CliRunner().invoke(
        main, ["--seconds", "5", "--warm-up", "5", "--engines", "1", "--plot", str(tmp_path / "x")]
    )

    assert told.exit_code == 1
    assert "pip install" in told.output
