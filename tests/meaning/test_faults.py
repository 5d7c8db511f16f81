"""The broken pictures and clips are broken in that one way: what the tests by meaning stand on, without an engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageOps

from gateway.demo.lessons.scenes import COLOURS, GROUNDS
from tests.meaning import faults
from tests.meaning.faults import Case, Gist, Part

#: The share of a picture that a thing takes up at least.
LEAST = 0.005

EVERY = (
    faults.turned,
    faults.recoloured,
    faults.resampled,
    faults.one_sided,
    faults.swapped,
    faults.lost,
    faults.repeated,
)


def content(part: Part) -> bytes:
    """The file in a part."""
    kind: Any = part[str(part["type"])]
    return base64.b64decode(kind["url"].partition(",")[2])


def opened(part: Part) -> Image.Image:
    return Image.open(io.BytesIO(content(part)))


@pytest.mark.parametrize("fault", EVERY)
def test_each_case_asks_the_same_question_of_other_media(fault: Callable[[int], list[Case]]) -> None:
    cases = fault(3)
    assert len(cases) == 3
    for case in cases:
        assert case.whole[-1] == case.broken[-1]
        assert case.whole[:-1] != case.broken[:-1]
        assert case.answer != case.mistaken
        assert case.answer


def test_a_turned_picture_differs_from_the_broken_one_by_its_tag_alone() -> None:
    for case in faults.turned(6):
        whole, broken = opened(case.whole[0]), opened(case.broken[0])
        assert whole.tobytes() == broken.tobytes()
        assert whole.getexif()[faults.ORIENTATION] in faults.TURNED
        assert faults.ORIENTATION not in broken.getexif()
        assert ImageOps.exif_transpose(whole).size == (9 * 48, 7 * 48)


def test_pictures_are_turned_each_way() -> None:
    assert {opened(case.whole[0]).getexif()[faults.ORIENTATION] for case in faults.turned(12)} == set(faults.TURNED)


def test_a_turn_and_a_swap_are_mistaken_for_the_other_order() -> None:
    for case in (*faults.turned(6), *faults.swapped(6)):
        assert case.mistaken == case.answer[::-1]


@pytest.mark.parametrize("fault", [faults.turned, faults.recoloured, faults.swapped])
def test_the_pictures_show_what_the_answers_say(fault: Callable[[int], list[Case]]) -> None:
    for case in fault(6):
        assert seen(case.whole[:-1], case.answer) == case.answer
        assert not case.mistaken or seen(case.broken[:-1], case.mistaken) == case.mistaken


def seen(pictures: list[Part], expected: Gist) -> Gist:
    """The colours in the pictures, of those expected, from left to right."""
    return tuple(colour for part in pictures for colour in _ordered(ImageOps.exif_transpose(opened(part)), expected))


def _ordered(image: Image.Image, expected: Gist) -> list[str]:
    names = [*COLOURS, *("ground" for _ in GROUNDS)]
    palette = np.array([*COLOURS.values(), *GROUNDS])
    distance = np.abs(np.asarray(image, np.int64)[:, :, None] - palette).sum(axis=-1)
    nearest = np.array(names)[distance.argmin(axis=-1)]
    places = {colour: np.nonzero(nearest == colour)[1] for colour in expected}
    # Edges are of mixed colours, which may be near to a third.
    large = {colour: float(np.median(at)) for colour, at in places.items() if at.size > LEAST * nearest.size}
    return sorted(large, key=large.__getitem__)


def test_of_an_answer_colours_and_digits_are_judged_in_their_order() -> None:
    assert faults.gist("The first has a red circle, the second a black star.") == ("red", "black")
    assert faults.gist("Orange, and 407 is dialled.") == ("orange", "4", "0", "7")
    assert faults.gist("A colored thing.") == ()


def test_a_clip_differs_from_the_broken_one_by_the_rate_in_its_header_alone() -> None:
    rates = set()
    for case in faults.resampled(4):
        (whole, rate), (broken, taken) = (soundfile.read(io.BytesIO(content(p[0]))) for p in (case.whole, case.broken))
        assert np.array_equal(whole, broken)
        assert taken == 16_000
        rates.add(rate)
    assert rates == set(faults.RATES)


def test_the_channel_that_is_left_has_no_sound_but_is_not_silent() -> None:
    for case in faults.one_sided(2):
        both, _ = soundfile.read(io.BytesIO(content(case.whole[0])))
        left, _ = soundfile.read(io.BytesIO(content(case.broken[0])))
        assert both.shape == (16_000, 2)
        assert sorted(np.abs(both).max(axis=0) > 0.5) == [False, True]
        assert 0 < np.abs(left).max() < 0.02
