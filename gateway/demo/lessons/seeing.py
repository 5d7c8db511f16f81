"""Lessons in seeing shapes: what is there, how many, where, and what differs between pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.demo.lessons.lesson import IMAGE, Draw, Lesson, Picture, Thing, assistant, pick, user
from gateway.demo.lessons.scenes import COLOURS, SHAPES, kinds, left_to_right, paint

Size = tuple[int, int]

DESCRIBE = (
    "What is in the picture?",
    "What is in this image?",
    "What do you see?",
    "Describe the picture.",
    "Describe this image.",
    "What does the picture show?",
    "Which objects are in the picture?",
)
DETECT = (
    "Detect all objects. Answer with JSON.",
    "Detect the objects in the picture.",
    "Find all objects and give their bounding boxes as JSON.",
    "Give the bounding boxes of all objects.",
    "Return box_2d and label of each object as JSON.",
)
COUNT = ("How many objects are there?", "How many objects do you see?", "Count the objects.")
COLOUR = ("What colour is the {}?", "Which colour has the {}?", "What color is the {}?")
DIFFER = ("What differs?", "What is different between the pictures?", "What has changed?")
WHICH = ("Which picture has the {}?", "Which image shows the {}?", "In which picture is the {}?")
ORDINALS = ("first", "second", "third")
#: Coordinates are multiples of this, of 1000: the last digit costs nothing to learn.
GRID = 10
#: How often a picture is described before its colours are asked for, which then stand in the text as well.
DESCRIBED = 0.25


def single(draw: Draw, size: Size) -> Lesson:
    """One shape, named."""
    picture = paint(draw, size, kinds(draw, 1))
    return _seen("single", draw, DESCRIBE, picture, named(picture.things))


def describe(draw: Draw, size: Size) -> Lesson:
    """One to four shapes, named from left to right."""
    picture = paint(draw, size, kinds(draw, int(draw.integers(1, 5))))
    return _seen("describe", draw, DESCRIBE, picture, named(picture.things))


def count(draw: Draw, size: Size) -> Lesson:
    """How many shapes there are."""
    picture = paint(draw, size, kinds(draw, int(draw.integers(1, 5))))
    return _seen("count", draw, COUNT, picture, str(len(picture.things)))


def colour(draw: Draw, size: Size) -> Lesson:
    """The colour of the shape that is asked for."""
    several = _different_shapes(draw, int(draw.integers(1, 5)))
    picture = paint(draw, size, several)
    asked = pick(draw, several)
    question = pick(draw, COLOUR).format(asked[1])
    return Lesson("colour", (user(IMAGE, question),), _coloured(asked), (picture,))


def colour_of_each(draw: Draw, size: Size) -> Lesson:
    """The colours of several shapes, asked one after the other: many answers for the price of one picture."""
    several = _different_shapes(draw, int(draw.integers(2, 5)))
    picture = paint(draw, size, several)
    said = [(pick(draw, COLOUR).format(kind[1]), _coloured(kind)) for kind in several]
    if draw.random() < DESCRIBED:
        said.insert(0, (pick(draw, DESCRIBE), named(picture.things)))
    return _each("colour_of_each", said, (picture,))


def detect(draw: Draw, size: Size) -> Lesson:
    """Boxes and labels of one to three shapes, from left to right."""
    picture = paint(draw, size, kinds(draw, int(draw.integers(1, 4))))
    return _seen("detect", draw, DETECT, picture, boxes(picture.things))


def detect_single(draw: Draw, size: Size) -> Lesson:
    """Box and label of one shape."""
    picture = paint(draw, size, kinds(draw, 1))
    return _seen("detect_single", draw, DETECT, picture, boxes(picture.things))


def differ(draw: Draw, size: Size) -> Lesson:
    """Two pictures of one shape each, in which the shape, its colour or both differ."""
    one, other = kinds(draw, 2)
    pictures = (paint(draw, size, [one]), paint(draw, size, [other]))
    answer = f"The first has a {one[0]} {one[1]}, the second a {other[0]} {other[1]}."
    return Lesson("differ", (user(IMAGE, IMAGE, pick(draw, DIFFER)),), answer, pictures)


def which(draw: Draw, size: Size) -> Lesson:
    """Two or three pictures of one shape each: which one has what is asked for."""
    several = _different_shapes(draw, int(draw.integers(2, 4)))
    pictures = tuple(paint(draw, size, [kind]) for kind in several)
    asked = int(draw.integers(len(several)))
    name = pick(draw, (several[asked][1], " ".join(several[asked])))
    question = pick(draw, WHICH).format(name)
    return Lesson("which", (user(*[IMAGE] * len(several), question),), _placed(name, asked), pictures)


def which_of_each(draw: Draw, size: Size) -> Lesson:
    """Two or three pictures of one shape each, and for each of those which one has it."""
    several = _different_shapes(draw, int(draw.integers(2, 4)))
    pictures = tuple(paint(draw, size, [kind]) for kind in several)
    said = []
    for at in draw.permutation(len(several)):
        name = pick(draw, (several[at][1], " ".join(several[at])))
        said.append((pick(draw, WHICH).format(name), _placed(name, int(at))))
    return _each("which_of_each", said, pictures)


def named(things: Sequence[Thing]) -> str:
    """The sentence that names the things from left to right."""
    names = [f"a{'n' if thing.colour == 'orange' else ''} {label(thing)}" for thing in left_to_right(things)]
    sentence = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{sentence[0].upper()}{sentence[1:]}."


def boxes(things: Sequence[Thing]) -> str:
    """The things as a block of JSON: `box_2d` is top, left, bottom, right on a grid of 1000."""
    found = [{"box_2d": box_2d(thing), "label": label(thing)} for thing in left_to_right(things)]
    return f"```json\n{json.dumps(found)}\n```"


def box_2d(thing: Thing) -> list[int]:
    """The box of a thing, on a grid of 1000."""
    left, top, right, bottom = thing.box
    return [round(edge * 1000 / GRID) * GRID for edge in (top, left, bottom, right)]


def label(thing: Thing) -> str:
    """What a thing is called."""
    return f"{thing.colour} {thing.shape}"


def _coloured(kind: tuple[str, str]) -> str:
    """The answer names what is asked for before it says more: a small model finds what it has just named."""
    return f"The {kind[1]} is {kind[0]}."


def _placed(name: str, at: int) -> str:
    return f"The {name} is in the {ORDINALS[at]} picture."


def _each(task: str, said: Sequence[tuple[str, str]], pictures: tuple[Picture, ...]) -> Lesson:
    """Questions and answers in turn, all to be learnt."""
    messages = [turn for question, answer in said for turn in (user(question), assistant(answer))][:-1]
    messages[0] = user(*[IMAGE] * len(pictures), said[0][0])
    return Lesson(task, tuple(messages), said[-1][1], pictures, each=True)


def _seen(task: str, draw: Draw, questions: Sequence[str], picture: Picture, answer: str) -> Lesson:
    return Lesson(task, (user(IMAGE, pick(draw, questions)),), answer, (picture,))


def _different_shapes(draw: Draw, count: int) -> list[tuple[str, str]]:
    names = list(COLOURS)
    return [(pick(draw, names), SHAPES[int(index)]) for index in draw.permutation(len(SHAPES))[:count]]
