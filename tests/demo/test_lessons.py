"""What the lessons of the demonstration model show and say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gateway.api import speech
from gateway.api.form import Form
from gateway.demo.exams import EXAMS
from gateway.demo.lessons.curriculum import (
    HEAR,
    SCHEDULES,
    SEE,
    TALK,
    Course,
    Split,
    Stage,
    lesson,
    lessons,
    stage,
)
from gateway.demo.lessons.lesson import Clip, Lesson, Thing
from gateway.demo.lessons.scenes import COLOURS
from gateway.demo.lessons.seeing import box_2d, named
from gateway.demo.lessons.tones import HIGH, KEYS, LOW, RATE, Sound, record
from gateway.settings import Family

EVERY = (*SEE, *HEAR, *TALK, "together")
SIDE = 4


def one(task: str, seed: int = 0) -> Lesson:
    return lesson(task, np.random.default_rng(seed), (SIDE, SIDE), 2.0)


def content(taught: Lesson) -> tuple[object, ...]:
    pixels = [picture.image.tobytes() for picture in taught.pictures]
    return taught.answer, json.dumps(taught.messages), pixels, [clip.samples.tobytes() for clip in taught.clips]


@pytest.mark.parametrize("task", EVERY)
def test_a_seed_gives_the_same_lesson_each_time(task: str) -> None:
    assert content(one(task, 3)) == content(one(task, 3))


@pytest.mark.parametrize("task", EVERY)
def test_a_conversation_names_each_of_its_media_once(task: str) -> None:
    taught = one(task)
    parts = [part["type"] for message in taught.messages for part in message["content"] or () if "type" in part]
    assert (parts.count("image"), parts.count("audio")) == (len(taught.pictures), len(taught.clips))


def test_training_and_held_out_lessons_differ() -> None:
    course = Course(("describe",), 4)
    held_out = lessons(course, Split.HELD_OUT, 0).lessons
    assert [content(x) for x in lessons(course, Split.TRAIN, 0).lessons] != [content(x) for x in held_out]


def test_pieces_come_from_anywhere_in_the_larger_picture_and_lie_within_it() -> None:
    course = Course(("line",), 1, ((8, 4), (6, 6)), within=(27, 23))
    taught = [lessons(course, Split.TRAIN, number) for number in range(200)]
    ends = [(one.offset[0] + one.grid[0], one.offset[1] + one.grid[1]) for one in taught if one.offset]
    assert len(ends) == 200
    assert (max(across for across, _ in ends), max(down for _, down in ends)) == (27, 23)
    assert min(one.offset for one in taught if one.offset)[0] == 0


def test_a_shape_has_its_colour_in_the_middle_of_its_box() -> None:
    for seed in range(20):
        picture = one("single", seed).pictures[0]
        thing = picture.things[0]
        if thing.shape != "ring":
            left, top, right, bottom = thing.box
            middle = ((left + right) / 2 * picture.image.width, (top + bottom) / 2 * picture.image.height)
            seen = picture.image.getpixel((int(middle[0]), int(middle[1])))
            assert isinstance(seen, tuple)
            assert max(abs(a - b) for a, b in zip(seen, COLOURS[thing.colour], strict=True)) <= 20


def test_shapes_do_not_touch_one_another() -> None:
    for seed in range(20):
        things = one("describe", seed).pictures[0].things
        for at, first in enumerate(things):
            for second in things[at + 1 :]:
                a, b = first.box, second.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_crowd_is_of_shapes_and_characters_each_where_it_is_said_to_be() -> None:
    things: list[Thing] = []
    for seed in range(20):
        taught = lesson("crowd", np.random.default_rng(seed), (8, 8), 0.0)
        picture = taught.pictures[0]
        assert not taught.messages
        things += picture.things
        for thing in picture.things:
            piece = picture.image.crop(tuple(round(edge * 384) for edge in thing.box))  # type: ignore[arg-type]
            assert len(piece.getcolors(65536) or ()) > 1 or thing.shape == "square" or thing.glyph in "1I"
    assert {bool(thing.glyph) for thing in things} == {True, False}
    assert not [thing for thing in things if bool(thing.glyph) == bool(thing.shape)]


def test_boxes_are_top_left_bottom_right_on_a_grid_of_a_thousand() -> None:
    taught = one("detect_single")
    thing = taught.pictures[0].things[0]
    left, top, right, bottom = thing.box
    assert np.allclose(box_2d(thing), np.array([top, left, bottom, right]) * 1000, atol=5)
    assert json.loads(taught.answer.split("\n")[1])[0]["box_2d"] == box_2d(thing)


def test_questions_asked_in_turn_are_about_all_that_is_shown() -> None:
    for seed in range(20):
        colours, places = one("colour_of_each", seed), one("which_of_each", seed)
        for thing in colours.pictures[0].things:
            assert [answer for question, answer in turns(colours) if f" {thing.shape}?" in question] == [
                f"The {thing.shape} is {thing.colour}."
            ]
        for ordinal, picture in zip(("first", "second", "third"), places.pictures, strict=False):
            (asked,) = [question for question, answer in turns(places) if f"in the {ordinal} picture" in answer]
            assert picture.things[0].shape in asked


def turns(taught: Lesson) -> list[tuple[str, str]]:
    """The questions of a conversation, and what is answered to each."""
    texts = [message["content"][-1]["text"] for message in taught.messages]
    return list(zip(texts[::2], [*texts[1::2], taught.answer], strict=True))


def test_an_answer_names_shapes_from_left_to_right_with_the_right_article() -> None:
    for seed in range(30):
        taught = one("describe", seed)
        assert taught.answer == named(taught.pictures[0].things)
        assert "a orange" not in taught.answer.lower()


@pytest.mark.parametrize("digit", KEYS)
def test_a_key_sounds_in_its_two_frequencies(digit: str) -> None:
    clip = record(np.random.default_rng(0), 1.0, [Sound(digit, 0.4)])
    assert loudest(clip) == {LOW[digit], HIGH[digit]}


def test_sounds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        record(np.random.default_rng(0), 0.5, [Sound("beep", 0.3), Sound("beep", 0.3)])


def test_stages_follow_one_another_to_the_end() -> None:
    for stages in SCHEDULES.values():
        ends = [one.until for one in stages]
        assert ends == sorted(set(ends))
        assert stage(1.0, stages) is stages[-1]
        assert stage(0.0, stages) is stages[0]


def test_a_course_that_comes_every_few_steps_comes_as_often_and_not_all_come_at_once() -> None:
    rare = Course(("which",), 1, every=3)
    taught = Stage("some", 1.0, (Course(("sums",), 1), rare, replace(rare, count=2)), dense=0.0)
    counts = [[course.count for course in taught.at(step) if course.every == 3] for step in range(6)]
    assert counts == [[], [2], [1], [], [2], [1]]


def test_transcriptions_are_asked_for_in_the_gateways_words() -> None:
    asked = {part["text"] for seed in range(9) for part in one("transcribe", seed).messages[0]["content"][1:]}
    forms = [Form(fields, b"") for fields in ({}, {"language": ("en",)})]
    assert asked == {speech.read("/v1/audio/transcriptions", form).instruction(Family.GEMMA4) for form in forms}


def test_sounds_of_every_course_fit_into_its_shortest_and_longest_clips() -> None:
    courses = {course for stages in SCHEDULES.values() for one in stages for course in one.courses}
    for task, seconds in {(task, seconds) for one in courses for task in one.tasks for seconds in one.seconds}:
        if task in HEAR:
            for number in range(60):
                made = lesson(task, np.random.default_rng(number), (8, 8), seconds)
                assert len(made.clips[0].samples) == round(seconds * RATE)


def test_every_taught_task_is_examined_or_is_a_step_towards_one_that_is() -> None:
    towards = {"detect_single", "colour_of_each", "which_of_each", "digit", "key", "line", "huge", "crowd"}
    taught = {task for one in SCHEDULES["full"] for course in one.courses for task in course.tasks}
    assert taught - towards == {exam.task for exam in EXAMS}


def loudest(clip: Clip) -> set[int]:
    """The two loudest of the frequencies that telephone keys have."""
    spectrum = np.abs(np.fft.rfft(clip.samples))
    hertz = np.fft.rfftfreq(len(clip.samples), 1 / RATE)
    every = {*LOW.values(), *HIGH.values()}
    power = {f: float(spectrum[np.abs(hertz - f) < 8].max()) for f in every}
    return set(sorted(every, key=power.__getitem__)[-2:])
