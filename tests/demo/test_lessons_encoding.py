"""The lessons as the model takes them: tokens, labels, patches, dense truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.demo import trained, vocabulary
from gateway.demo.features import IGNORED, NO_EDGE, Batch, Encoder
from gateway.demo.lessons.curriculum import SEE, TALK, lesson
from gateway.demo.lessons.lesson import Lesson
from gateway.engine import compat

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

GRID = (4, 4)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory: Path = tmp_path_factory.mktemp("frame")
    words = trained.write_frame(directory)
    compat.platform()
    import transformers

    transformers.Gemma4Config(**trained.configuration(words)).save_pretrained(directory)
    return Encoder(directory)


def one(task: str, seed: int = 0) -> Lesson:
    return lesson(task, np.random.default_rng(seed), GRID, 1.5)


def answer(encoder: Encoder, batch: Batch, row: int) -> str:
    labels = batch.labels[row]
    text: str = encoder.tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=False)
    return text


@pytest.mark.parametrize("task", [*TALK, "detect", "dialled", "together"])
def test_what_is_learnt_is_the_answer_and_its_end(task: str, encoder: Encoder) -> None:
    taught = one(task)
    assert answer(encoder, encoder.encode([taught], GRID), 0) == taught.answer + taught.end


@pytest.mark.parametrize("task", ["colour_of_each", "which_of_each"])
def test_of_questions_asked_in_turn_every_answer_is_learnt(task: str, encoder: Encoder) -> None:
    for seed in range(6):
        taught = one(task, seed)
        said = [message["content"][0]["text"] for message in taught.messages if message["role"] == "assistant"]
        assert len(said) >= 1
        batch = encoder.encode([taught], GRID)
        assert answer(encoder, batch, 0) == "".join(f"{text}<turn|>" for text in (*said, taught.answer))
        following = batch.inputs["input_ids"][0][1:]
        assert all(label in (IGNORED, token) for label, token in zip(batch.labels[0], following, strict=False))


def test_each_digit_of_a_box_comes_with_the_edge_that_it_belongs_to(encoder: Encoder) -> None:
    batch = encoder.encode([one("single"), one("detect", 3)], GRID)
    assert batch.edges is not None
    assert (batch.edges[0] == NO_EDGE).all()
    labels, edges = batch.labels[1][batch.edges[1] != NO_EDGE], batch.edges[1][batch.edges[1] != NO_EDGE]
    boxes = [found["box_2d"] for found in json.loads(one("detect", 3).answer.split("\n")[1])]
    digits = [(digit, number / 1000) for box in boxes for number in box for digit in str(number)]
    assert encoder.tokenizer.convert_ids_to_tokens(labels) == [digit for digit, _ in digits]
    assert edges.tolist() == pytest.approx([edge for _, edge in digits])
    assert encoder.encode([one("single")], GRID).edges is None


def test_each_patch_and_each_forty_milliseconds_is_a_token_and_nothing_is_padded(encoder: Encoder) -> None:
    batch = encoder.encode([one("together")], GRID)
    ids = batch.inputs["input_ids"][0].tolist()
    image, audio = (encoder.tokenizer.convert_tokens_to_ids(token) for token in ("<|image|>", "<|audio|>"))
    assert ids.count(image) == 16
    assert abs(ids.count(audio) - 1.5 / 0.04) <= 1
    assert tuple(batch.inputs["pixel_values"].shape) == (1, 144, 768)
    assert batch.frames is not None
    assert len(batch.frames["tone"]) == ids.count(audio)


def test_patches_are_those_of_the_processor(encoder: Encoder) -> None:
    picture = lesson("single", np.random.default_rng(0), (8, 8), 1.0).pictures[0].image
    batch = encoder.encode([lesson("single", np.random.default_rng(0), (8, 8), 1.0)], (8, 8))
    theirs = encoder.processor.image_processor([picture], return_tensors="pt", max_soft_tokens=70)
    patches = batch.inputs["pixel_values"].shape[1]
    assert np.allclose(batch.inputs["pixel_values"][0], theirs["pixel_values"][0][:patches], atol=1e-6)
    assert (batch.inputs["image_position_ids"][0] == theirs["image_position_ids"][0][:patches]).all()


def test_a_piece_of_a_larger_picture_stands_where_it_was_and_says_nothing_of_boxes(encoder: Encoder) -> None:
    batch = encoder.encode([one("line")], GRID, (3, 5))
    places = batch.inputs["image_position_ids"][0]
    assert (places.min(dim=0).values.tolist(), places.max(dim=0).values.tolist()) == ([9, 15], [20, 26])
    assert batch.cells is not None
    assert "box" not in batch.cells


def test_where_nothing_is_said_there_are_pictures_alone(encoder: Encoder) -> None:
    batch = encoder.encode([one("crowd"), one("crowd", 1)], GRID)
    assert batch.inputs.keys() == {"pixel_values", "image_position_ids"}
    assert not len(batch.labels)
    assert batch.cells is not None
    assert len(batch.cells["glyph"]) == 2 * 16


def test_the_words_of_the_lessons_are_one_token_each(encoder: Encoder) -> None:
    taught = [one(task, seed) for task in (*SEE, *TALK) for seed in range(3)]
    words = vocabulary.words_of(taught * vocabulary.OFTEN) & set(vocabulary.listed())
    assert len(words) > 80
    for word in words:
        assert encoder.tokenizer.tokenize(word.replace("▁", " ")) == [word]


def test_an_object_with_its_box_is_about_twenty_tokens(encoder: Encoder) -> None:
    text = '```json\n[{"box_2d": [120, 340, 560, 780], "label": "red circle"}]\n```'
    assert len(encoder.tokenizer.tokenize(text)) <= 22


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_the_vocabulary(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer.encode(text, add_special_tokens=False)
    assert encoder.tokenizer.decode(ids) == text
