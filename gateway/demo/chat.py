"""The chat template of each small Gemma."""

from __future__ import annotations

import json
from importlib.resources import files

from gateway.demo.configurations import Shape
from gateway.settings import Family


def chat_template(family: Family, shape: Shape) -> str:
    """The Jinja template of a family, after the few values in which its members differ."""
    name = "gemma4.jinja" if family is Family.GEMMA4 else "gemma3.jinja"
    template = (files("gateway.demo") / "templates" / name).read_text()
    values = _template_values(family, shape)
    return "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in values.items()) + template


def _template_values(family: Family, shape: Shape) -> dict[str, str | bool]:
    match family:
        case Family.GEMMA3:
            return {"image_marker": "<start_of_image>", "audio_marker": ""}
        case Family.GEMMA3N:
            return {"image_marker": "<image_soft_token>", "audio_marker": "<audio_soft_token>"}
        case Family.GEMMA4:
            # With thinking off the large ones are given an empty thought, the E ones nothing.
            return {"closes_thought": shape is not Shape.E}
