"""What each token of a picture and of a clip is said to show."""

from __future__ import annotations

import pytest

from gateway.demo.lessons.lesson import Span, Thing

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

GRID = (4, 2)
RED_CIRCLE = Thing((0.0, 0.0, 0.5, 0.5), "circle", "red")
LETTER = Thing((0.78, 0.5, 0.97, 1.0), glyph="A")


def numbers(name: str, *things: Thing) -> list[int]:
    from gateway.demo.dense import cells

    numbers: list[int] = cells([things], GRID)[name].tolist()
    return numbers


def test_a_token_shows_what_most_of_it_is() -> None:
    assert numbers("colour", RED_CIRCLE, LETTER) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert numbers("shape", RED_CIRCLE, LETTER) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert numbers("glyph", RED_CIRCLE, LETTER) == [0] * 7 + [11]


def test_a_token_with_little_of_a_thing_is_not_learnt() -> None:
    from gateway.demo.dense import UNSURE

    assert numbers("colour", Thing((0.0, 0.0, 0.3, 0.5), "circle", "red"))[:3] == [1, UNSURE, 0]


def test_a_small_thing_that_is_mostly_in_a_token_is_what_that_shows() -> None:
    assert numbers("glyph", Thing((0.2, 0.1, 0.26, 0.2), glyph="B"))[:2] == [12, -100]


def test_things_are_numbered_from_the_left_unless_there_are_many() -> None:
    assert numbers("rank", LETTER, RED_CIRCLE) == [1, 1, 0, 0, 0, 0, 0, 2]
    narrow = [Thing((at / 8, 0.0, at / 8 + 0.125, 0.5), glyph="C") for at in range(6)]
    assert numbers("rank", *narrow) == [-100, -100, -100, 0, 0, 0, 0, 0]


def test_a_box_is_that_of_the_thing_and_a_piece_has_none() -> None:
    from gateway.demo.dense import cells

    truth = cells([[LETTER]], GRID)
    assert truth["box"][7].tolist() == pytest.approx(LETTER.box)
    assert (truth["box"][:7] == -1).all()
    assert "box" not in cells([[LETTER]], GRID, whole=False)


def test_each_forty_milliseconds_sound_like_what_is_in_their_middle() -> None:
    from gateway.demo.dense import CLASSES, frames

    tone = frames([[Span(0.03, 0.09, "5")]], [4])["tone"].tolist()
    five = 1 + CLASSES["tone"].index("5")
    assert tone == [0, five, 0, 0]


def test_an_edge_that_is_said_wrong_costs_by_how_far_it_is_off() -> None:
    import torch

    from gateway.demo.dense import Heads

    heads = Heads(2)
    with torch.no_grad():
        heads.edge.weight.copy_(torch.tensor([[1.0, 0.0]]))
        heads.edge.bias.zero_()
        costs = [float(heads.edge_loss(torch.tensor([[0.5 + off, 9.0]]), torch.tensor([0.5]))) for off in (0, 0.1, 0.2)]
    assert costs[0] == 0
    assert costs[2] - costs[1] == pytest.approx(1.0, abs=1e-4)


def test_heads_that_say_what_is_true_lose_little_and_a_box_costs_by_its_digits() -> None:
    import torch

    from gateway.demo.dense import CLASSES, Heads, cells

    torch.set_num_threads(1)
    torch.manual_seed(0)
    truth = cells([[RED_CIRCLE, LETTER]], GRID)
    tokens = torch.randn(8, 16)
    heads = Heads(16)
    before = heads.losses(tokens, truth)
    assert before.keys() == {"colour", "shape", "glyph", "rank", "box"}
    learner = torch.optim.Adam(heads.parameters())
    for step in range(400):
        learner.param_groups[0]["lr"] = 0.05 if step < 200 else 0.01
        learner.zero_grad()
        sum(heads.losses(tokens, truth).values(), torch.zeros(())).backward()
        learner.step()
    after = heads.losses(tokens, truth)
    assert all(after[name] < 0.05 < before[name] for name in before)
    said = heads.classes["glyph"](tokens[7]).argmax()
    assert CLASSES["glyph"][said - 1] == "A"
    tens, ones = heads.digits(tokens[7]).view(4, 2, 10)[0].argmax(-1).tolist()
    assert (tens, ones) == (7, 8)
