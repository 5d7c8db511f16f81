"""For clients: reads the boxes in a Gemma's answer about what is where on a picture, and draws them.

Gemma names a box as `[top, left, bottom, right]` on a grid of 1000 by 1000, whatever the picture's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import Image, ImageDraw, ImageFont, ImageOps

#: Parts into which the grid divides each side.
GRID = 1000

#: JSON schema of an answer, for `response_format`: holds a model to what `parse` reads, and to an end.
SCHEMA: dict[str, Any] = {
    "type": "array",
    "maxItems": 20,
    "items": {
        "type": "object",
        "properties": {
            "box_2d": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": GRID},
                "minItems": 4,
                "maxItems": 4,
            },
            "label": {"type": "string", "maxLength": 60},
        },
        "required": ["box_2d", "label"],
        "additionalProperties": False,
    },
}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Colours of the labels, in the order in which they first occur: those of Okabe and Ito, which all eyes tell apart.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

#: A picture's longer side over the thickness of a line, and the height of a letter over that thickness.
_THICKNESS, _LETTER = 250, 5

#: A block of code, whatever its language; one that is not closed goes to the end.
_FENCE = re.compile(r"```\w*\s*\n(.*?)(?:```|\Z)", re.DOTALL)

#: Where JSON begins that can hold boxes, so that brackets in prose are not taken for it.
_START = re.compile(r'\[\s*[\[{\]]|\{\s*["}]')

_BETWEEN = re.compile(r"[\s,]*")


class BoxesError(ValueError):
    """An answer without boxes that can be read. The message names the place, such as `[2].box_2d[1]`."""


@dataclass(frozen=True)
class Box:
    """Something on a picture: where it is in thousandths of the picture's height and width, and what it is called."""

    top: float
    left: float
    bottom: float
    right: float
    label: str = ""

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom on a picture of that size, as Pillow's `crop` takes them."""
        return (
            round(self.left * width / GRID),
            round(self.top * height / GRID),
            round(self.right * width / GRID),
            round(self.bottom * height / GRID),
        )


def parse(answer: str) -> list[Box]:
    """The boxes in an answer, in its order; an empty list where it says `[]`.

    Takes JSON alone, in Markdown's blocks of code or amid text; one object, several or a list, also as the only field
    of an object. What is beyond the picture is brought back to its edge, and sides that are swapped are put right.
    Raises BoxesError where there is no JSON, where it is cut off or wrong, or where a box is not four numbers.
    """
    texts = [text for text in (*_FENCE.findall(answer), answer) if _START.search(text)]
    if not texts:
        raise BoxesError("the answer contains no JSON")
    fenced = texts[:-1] or texts
    return [box for text in fenced for value, where in _values(text) for box in _boxes(value, where)]


def upright(image: Image.Image) -> Image.Image:
    """The picture as the model sees it: turned as EXIF says, RGB, on white where it is transparent.

    Boxes lie on this one, so take the size from here: photographs of phones are often stored on their side.
    """
    turned = ImageOps.exif_transpose(image)
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    layer = turned.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def draw(image: Image.Image, boxes: Iterable[Box], font: Font | None = None) -> Image.Image:
    """A copy of the picture, upright, with the boxes and their labels, each label in a colour of its own.

    `font` is for scripts that Pillow's own font lacks.
    """
    drawn = upright(image)
    pen = ImageDraw.Draw(drawn)
    thickness = max(2, max(drawn.size) // _THICKNESS)
    letters = font or ImageFont.load_default(thickness * _LETTER)
    colours: dict[str, str] = {}
    for box in boxes:
        colour = colours.setdefault(box.label, _COLOURS[len(colours) % len(_COLOURS)])
        place = box.pixels(*drawn.size)
        pen.rectangle(place, outline=colour, width=thickness)
        if box.label:
            _write(pen, box.label, place, colour, letters, drawn.size)
    return drawn


def _write(
    pen: ImageDraw.ImageDraw,
    label: str,
    place: tuple[int, int, int, int],
    colour: str,
    font: Font,
    size: tuple[int, int],
) -> None:
    """Writes a label above its box, or inside where there is no room, never beyond the picture's edge."""
    left, top, right, bottom = pen.multiline_textbbox((0, 0), label, font=font)
    margin = (bottom - top) / 4
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0.0, min(place[0], size[0] - width))
    y = place[1] - height if place[1] >= height else max(0.0, min(place[1], size[1] - height))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    ink = "black" if colour in ("#E69F00", "#56B4E9", "#F0E442") else "white"
    pen.multiline_text((x + margin - left, y + margin - top), label, fill=ink, font=font)


def _values(text: str) -> Iterator[tuple[Any, str]]:
    """The JSON values that follow one another, the first wherever it begins, each with its name in messages."""
    begin = _START.search(text)
    number = 0
    while begin is not None:
        value, end = _decoded(text, begin.start())
        yield value, f"value {number + 1}" if number else ""
        number += 1
        rest = _BETWEEN.match(text, end)
        begin = _START.match(text, rest.end() if rest else end)


def _decoded(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise BoxesError("the answer ends within its JSON; was max_tokens too small?") from error
        raise BoxesError(f"the answer's JSON is wrong at line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise BoxesError("the answer's JSON is nested too deeply") from error
    except ValueError as error:
        raise BoxesError(f"the answer's JSON has a number that cannot be read: {error}") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _boxes(value: Any, where: str) -> Iterator[Box]:
    items = _listed(value)
    if items is None:
        yield _box(value, where)
        return
    for number, item in enumerate(items):
        yield _box(item, f"{where}[{number}]")


def _listed(value: Any) -> list[Any] | None:
    """The list that a value is, or that is the only field of an object, as JSON schemas often want it."""
    if isinstance(value, dict) and len(value) == 1 and "box_2d" not in value:
        (value,) = value.values()
    return value if isinstance(value, list) else None


def _box(item: Any, where: str) -> Box:
    if not isinstance(item, dict):
        raise BoxesError(f"{where}: not an object but {_kind(item)}")
    name = f"{where}.box_2d".lstrip(".")
    if "box_2d" not in item:
        raise BoxesError(f"{name} is missing")
    sides = item["box_2d"]
    if not isinstance(sides, list) or len(sides) != 4:
        found = f"{len(sides)} of them" if isinstance(sides, list) else _kind(sides)
        raise BoxesError(f"{name}: not four numbers but {found}")
    top, left, bottom, right = (_side(side, f"{name}[{number}]") for number, side in enumerate(sides))
    label = item.get("label", "")
    if not isinstance(label, str):
        raise BoxesError(f"{where}.label: not a text but {_kind(label)}".lstrip("."))
    return Box(min(top, bottom), min(left, right), max(top, bottom), max(left, right), label)


def _side(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BoxesError(f"{where}: not a number but {_kind(value)}")
    return float(max(0, min(value, GRID)))


def _kind(value: Any) -> str:
    """What JSON calls a value of this type."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
