"""Small Gemmas as transformers loads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gateway.demo.model import Shape
from gateway.settings import Family

SmallGemma = Callable[[Family, Shape], Path]


@cache
def load_processor(directory: Path) -> Any:
    """The processor, with its tokenizer and chat template."""
    from gateway.engine import compat

    compat.platform()
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(directory)


def load_model(directory: Path) -> Any:
    """The model in float32."""
    from gateway.engine import compat

    compat.platform()
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
