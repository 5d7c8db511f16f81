"""Boxes are read from whatever a Gemma wraps them in, and drawn where they belong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.boxes import Box, BoxesError, draw, parse, upright

BIKE = '{"box_2d": [100, 200, 300, 400], "label": "bike"}'
FOUND = Box(100, 200, 300, 400, "bike")

on_grid = st.integers(0, 1000) | st.floats(0, 1000)
anything = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
sides = st.integers(1, 5000)
boxes = st.builds(
    lambda y, x, label: Box(min(y), min(x), max(y), max(x), label),
    st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
    st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
    st.text(max_size=20),
)


def written(box: Box) -> dict[str, object]:
    return {"box_2d": [box.top, box.left, box.bottom, box.right], "label": box.label}


@pytest.mark.parametrize(
    "answer",
    [
        BIKE,
        f"[{BIKE}]",
        f"```json\n[{BIKE}]\n```",
        f"```\n{BIKE}\n```",
        f"Here it is [as asked]:\n\n```json\n[\n  {BIKE}\n]\n```\nAnything else?",
        f"The bike is at {BIKE}, on the left.",
        f"```json\n[{BIKE}]",
        f'{{"objects": [{BIKE}]}}',
        f"```python\nprint(1)\n```\n```json\n[{BIKE}]\n```",
        '[{"box_2d": [300.0, 400, 100, 200], "label": "bike", "score": 0.9}]',
    ],
)
def test_one_box_is_found_however_it_is_wrapped(answer: str) -> None:
    assert parse(answer) == [FOUND]


@pytest.mark.parametrize("answer", [f"[{BIKE}, {BIKE}]", f"{BIKE}\n{BIKE}", f"{BIKE}, {BIKE}"])
def test_several_boxes_come_as_a_list_or_one_after_the_other(answer: str) -> None:
    assert parse(answer) == [FOUND, FOUND]


def test_boxes_of_all_blocks_of_code_count() -> None:
    assert parse(f"Left:\n```json\n{BIKE}\n```\nRight:\n```json\n[{BIKE}]\n```") == [FOUND, FOUND]


@pytest.mark.parametrize("answer", ["[]", "```json\n[]\n```", '{"objects": []}'])
def test_nothing_found_is_no_error(answer: str) -> None:
    assert parse(answer) == []


def test_a_box_without_a_label_has_an_empty_one() -> None:
    assert parse('{"box_2d": [1, 2, 3, 4]}') == [Box(1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "the answer contains no JSON"),
        ("There is [no bike] on this picture.", "the answer contains no JSON"),
        (f"[{BIKE}, ", "the answer ends within its JSON; was max_tokens too small?"),
        (f'```json\n[{BIKE}, {{"box_2d": [1, 2', "the answer ends within its JSON; was max_tokens too small?"),
        (f'[{BIKE}, {{"label": "bi', "the answer ends within its JSON; was max_tokens too small?"),
        (
            "[{'box_2d': [1]}]",
            "the answer's JSON is wrong at line 1: Expecting property name enclosed in double quotes",
        ),
        (f"[{BIKE}, [1, 2, 3, 4]]", "[1]: not an object but a list"),
        ('[{"label": "bike"}]', "[0].box_2d is missing"),
        ('{"label": "bike", "box": []}', "box_2d is missing"),
        (f'[{BIKE}, {{"box_2d": [1, 2, 3]}}]', "[1].box_2d: not four numbers but 3 of them"),
        ('{"box_2d": "1, 2, 3, 4"}', "box_2d: not four numbers but a text"),
        ('{"box_2d": [1, "2", 3, 4]}', "box_2d[1]: not a number but a text"),
        ('{"box_2d": [1, 2, true, 4]}', "box_2d[2]: not a number but true or false"),
        ('{"box_2d": [1, 2, 3, null]}', "box_2d[3]: not a number but null"),
        ('{"box_2d": [1, 2, 3, 4], "label": 5}', "label: not a text but a number"),
        ('{"box_2d": [NaN, 2, 3, 4]}', "the answer's JSON has a number that cannot be read: NaN"),
        (f'{BIKE} {{"box_2d": 1}}', "value 2.box_2d: not four numbers but a number"),
        ("[" * 100_000, "the answer's JSON is nested too deeply"),
    ],
)
def test_an_answer_that_cannot_be_read_says_where(answer: str, message: str) -> None:
    with pytest.raises(BoxesError) as caught:
        parse(answer)
    assert str(caught.value).startswith(message)


@given(st.lists(boxes))
def test_what_is_written_is_read(found: list[Box]) -> None:
    assert parse(f"```json\n{json.dumps([written(box) for box in found])}\n```") == found


@given(st.text() | st.text(alphabet='[]{}",:0 \n`'))
def test_no_text_brings_another_error(answer: str) -> None:
    try:
        found = parse(answer)
    except BoxesError:
        return
    assert all(isinstance(box, Box) for box in found)


@given(st.lists(anything, min_size=4, max_size=4), sides, sides)
def test_pixels_are_on_the_picture_and_in_order(numbers: list[float], width: int, height: int) -> None:
    (box,) = parse(json.dumps({"box_2d": numbers}))
    left, top, right, bottom = box.pixels(width, height)
    assert 0 <= left <= right <= width
    assert 0 <= top <= bottom <= height


@given(on_grid, on_grid, sides, sides)
def test_pixels_are_within_half_a_pixel_of_the_grid(y: float, x: float, width: int, height: int) -> None:
    left, top, _, _ = Box(y, x, 1000, 1000).pixels(width, height)
    assert abs(left - x / 1000 * width) <= 0.5
    assert abs(top - y / 1000 * height) <= 0.5


def test_the_whole_grid_is_the_whole_picture() -> None:
    assert Box(0, 0, 1000, 1000).pixels(4032, 3024) == (0, 0, 4032, 3024)


def test_a_box_is_drawn_where_it_is_and_nowhere_else() -> None:
    plain = Image.new("RGB", (400, 200), "white")
    drawn = draw(plain, [Box(250, 250, 750, 750)])
    changed = {(x, y) for x in range(400) for y in range(200) if drawn.getpixel((x, y)) != (255, 255, 255)}
    assert {(100, 50), (300, 150)} <= changed
    assert all(100 <= x <= 300 and 50 <= y <= 150 for x, y in changed)
    assert (200, 100) not in changed
    assert plain.getcolors() == [(80_000, (255, 255, 255))]


def test_labels_have_colours_of_their_own() -> None:
    found = [Box(400, 100, 600, 300, "cat"), Box(400, 400, 600, 600, "dog"), Box(400, 700, 600, 900, "cat")]
    drawn = draw(Image.new("RGB", (500, 500), "white"), found)
    first, second, third = (drawn.getpixel(box.pixels(500, 500)[2:]) for box in found)
    assert first == third != second


@given(st.lists(boxes, max_size=5), st.integers(1, 60), st.integers(1, 60))
def test_drawing_works_on_any_picture(found: list[Box], width: int, height: int) -> None:
    assert draw(Image.new("L", (width, height)), found).size == (width, height)


def test_a_photograph_is_drawn_on_as_the_model_saw_it() -> None:
    photograph = Image.new("RGB", (40, 20), "white")
    photograph.getexif()[0x0112] = 6
    assert upright(photograph).size == (20, 40)
    assert draw(photograph, [Box(0, 0, 1000, 1000)]).size == (20, 40)


def test_transparent_is_white() -> None:
    assert upright(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_the_helper_needs_neither_torch_nor_the_gateway() -> None:
    loaded = (
        "import sys, gateway.boxes; print([m for m in ('torch', 'vllm', 'pydantic', 'fastapi') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True).strip() == "[]"
