"""Lessons in reading: digits and short words in a picture."""

from __future__ import annotations

import string
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from gateway.demo.lessons.lesson import IMAGE, Draw, Lesson, Picture, Thing, pick, user
from gateway.demo.lessons.scenes import scatter

Size = tuple[int, int]

READ_ANY = ("What is written there?", "What is written here?", "Read the text.")
READ_NUMBER = ("Read the number.", "Which number is in the picture?", "What number do you see?", *READ_ANY)
READ_WORD = ("Read the word.", "Which word is in the picture?", *READ_ANY)
GLYPHS = string.digits + string.ascii_uppercase
#: From how many things up to below how many a crowd is.
CROWD = (6, 17)
GROUNDS = ((255, 255, 255), (245, 240, 225), (225, 235, 245))
INKS = ((20, 20, 20), (30, 40, 120), (120, 25, 25))
#: Height of large letters as a fraction of the picture's shorter side, and of small ones in pixels of a picture that
#: is `SMALL_SIDE` high: at 560 tokens such a letter is about a token wide, at 70 three are one token.
LARGE, LINE, HUGE = (0.16, 0.4), (0.3, 0.6), (0.45, 0.9)
SMALL, SMALL_SIDE = (44, 60), 1024
MARGIN = 0.04


def digits(draw: Draw, size: Size) -> Lesson:
    """Two to five large digits."""
    return _read("digits", draw, size, _number(draw, 2, 6), LARGE)


def digit(draw: Draw, size: Size) -> Lesson:
    """One large digit or letter."""
    return _read("digit", draw, size, pick(draw, GLYPHS), (0.35, 0.7))


def word(draw: Draw, size: Size) -> Lesson:
    """Two to five large letters."""
    return _read("word", draw, size, _letters(draw, 2, 6), LARGE)


def line(draw: Draw, size: Size) -> Lesson:
    """Two to five characters that are about as high as there is room for five."""
    text = pick(draw, (_number, _letters))(draw, 2, 6)
    return _read("line", draw, size, text, LINE)


def huge(draw: Draw, size: Size) -> Lesson:
    """One to three characters that fill the picture."""
    text = pick(draw, (_number, _letters))(draw, 1, 4)
    return _read("huge", draw, size, text, HUGE)


def small_text(draw: Draw, size: Size) -> Lesson:
    """Digits or letters that only many tokens show."""
    text = pick(draw, (_number, _letters))(draw, 3, 6)
    return _read("small_text", draw, size, text, (SMALL[0] / SMALL_SIDE, SMALL[1] / SMALL_SIDE))


def write(draw: Draw, size: Size, text: str, heights: tuple[float, float]) -> Picture:
    """A picture of `size` (width, height; pixels) with `text` somewhere, as high as it may be and as there is room."""
    canvas = Image.new("RGB", size, pick(draw, GROUNDS))
    pen = ImageDraw.Draw(canvas)
    room = size[0] * (1 - 2 * MARGIN)
    font = _font(round(float(draw.uniform(*heights)) * min(size) / 0.72))
    while pen.textlength(text, font) > room:
        font = _font(int(font.size * 0.9))
    _, top, right, bottom = pen.textbbox((0, 0), text, font)
    left = float(draw.uniform(size[0] * MARGIN, max(size[0] * MARGIN + 1, size[0] * (1 - MARGIN) - right)))
    high = float(draw.uniform(size[1] * MARGIN, max(size[1] * MARGIN + 1, size[1] * (1 - MARGIN) - bottom + top))) - top
    pen.text((left, high), text, pick(draw, INKS), font)
    edges = [left + pen.textlength(text[:end], font) for end in range(len(text) + 1)]
    rows = ((high + top) / size[1], (high + bottom) / size[1])
    things = (
        Thing((edges[at] / size[0], rows[0], edges[at + 1] / size[0], rows[1]), glyph=glyph)
        for at, glyph in enumerate(text)
    )
    return Picture(canvas, tuple(things))


def crowd(draw: Draw, size: Size) -> Lesson:
    """Many shapes and characters of any size, and nothing asked: what each token shows is all there is to learn."""
    canvas, things = scatter(draw, size, int(draw.integers(*CROWD)))
    pen = ImageDraw.Draw(canvas)
    shown = [_put(draw, pen, thing, size) if not thing.shape else thing for thing in things]
    return Lesson("crowd", (), "", (Picture(canvas, tuple(shown)),))


def _put(draw: Draw, pen: ImageDraw.ImageDraw, room: Thing, size: Size) -> Thing:
    """Writes a character into a room, and says where it is."""
    glyph = pick(draw, GLYPHS)
    left, top = room.box[0] * size[0], room.box[1] * size[1]
    font = _font(int((room.box[3] * size[1] - top) / 0.75))
    _, high, wide, low = pen.textbbox((0, 0), glyph, font)
    pen.text((left, top - high), glyph, pick(draw, INKS), font)
    return Thing((room.box[0], room.box[1], (left + wide) / size[0], (top + low - high) / size[1]), glyph=glyph)


def _read(task: str, draw: Draw, size: Size, text: str, heights: tuple[float, float]) -> Lesson:
    picture = write(draw, size, text, heights)
    question = pick(draw, READ_NUMBER if text.isdigit() else READ_WORD)
    return Lesson(task, (user(IMAGE, question),), text, (picture,))


def _number(draw: Draw, least: int, below: int) -> str:
    return "".join(pick(draw, string.digits) for _ in range(int(draw.integers(least, below))))


def _letters(draw: Draw, least: int, below: int) -> str:
    return "".join(pick(draw, string.ascii_uppercase) for _ in range(int(draw.integers(least, below))))


@cache
def _font(height: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that every machine draws the same."""
    font = ImageFont.load_default(max(6, height))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType: install its wheel")
    return font
