"""What an image costs is what the running engine counts, whatever became of the image on its way."""

from __future__ import annotations

from io import BytesIO

import openai
import pytest
from PIL import Image

from gateway.media.budget import image_tokens
from gateway.settings import Family
from tests.engine.media import data_url
from tests.engine.test_media import ask, media_tokens

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("kind", "size", "budget"),
    [
        ("PNG", (40, 24), 70),
        ("PNG", (1, 1), 70),
        ("PNG", (1, 600), 70),
        ("PNG", (2380, 34), 70),
        ("JPEG", (900, 3), None),
        ("WEBP", (333, 777), 140),
        ("GIF", (640, 480), None),
        ("BMP", (700, 500), 70),
        ("TIFF", (1234, 567), 140),
        ("HEIF", (640, 480), None),
        ("AVIF", (2400, 1800), None),
        ("JPEG", (2400, 1800), None),
        ("JPEG", (1800, 2400), 560),
        ("JPEG", (3200, 1600), 70),
    ],
)
def test_an_image_costs_what_was_predicted(
    client: openai.OpenAI, kind: str, size: tuple[int, int], budget: int | None
) -> None:
    encoded = BytesIO()
    Image.new("RGB", size, "orange").save(encoded, kind)
    part: dict[str, object] = {
        "type": "image_url",
        "image_url": {"url": data_url(encoded.getvalue(), f"image/{kind.lower()}")},
    }
    body = {} if budget is None else {"max_soft_tokens": budget}
    counted = media_tokens(ask(client, [part, {"type": "text", "text": "?"}], **body))["image"]
    assert counted == image_tokens(*size, Family.GEMMA4, budget)
