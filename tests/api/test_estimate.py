"""What a request may cost is known well enough before the engine has seen it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gateway.api.estimate import Estimate, estimate
from gateway.protocol import parse

CHAT = "/v1/chat/completions"


def of(path: str = CHAT, **fields: Any) -> Estimate:
    request = parse(path, json.dumps(fields, separators=(",", ":")).encode())
    return estimate(request, request.text_bytes, answer=256)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, 256),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "best_of": 2, "n": 1}, 20),
        ({"max_tokens": None}, 256),
        ({"max_tokens": "many"}, 256),
        ({"max_tokens": -5, "n": -1}, 256),
        ({"max_tokens": 90.0}, 90),
        ({"max_tokens": "90"}, 90),
        ({"max_tokens": 10**12}, 10**9),
        ({"max_tokens": "9" * 5000}, 10**9),
        ({"max_tokens": 1e300, "n": 2}, 2 * 10**9),
        ({"max_tokens": [10]}, 256),
    ],
)
def test_answer_is_as_long_as_the_request_allows_for_each_choice(fields: dict[str, Any], answer: int) -> None:
    assert of(**fields).answer == answer


@pytest.mark.parametrize("asked", [5000, 10**15, 1e18])
def test_answer_is_no_longer_than_the_context_where_that_is_known(asked: float) -> None:
    request = parse(CHAT, json.dumps({"max_tokens": asked, "n": 2}).encode())
    assert estimate(request, request.text_bytes, answer=256, context=4096).answer == 2 * 4096


def test_prompt_is_a_token_for_every_four_bytes() -> None:
    longer, shorter = of(messages=[{"content": "x" * 4400}]), of(messages=[{"content": "x" * 400}])
    assert longer.prompt - shorter.prompt == 1000


@pytest.mark.parametrize("size", [3_000, 30_000])
def test_media_are_no_text_whether_they_were_carved_out_or_not(size: int) -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
    assert of(messages=[{"content": [{"type": "image_url", "image_url": {"url": url}}]}]).prompt < 40


def test_routes_that_generate_nothing_cost_no_answer_and_those_that_ask_nothing_are_free() -> None:
    assert of("/v1/embeddings", input="x" * 400).answer == 0
    assert of("/tokenize", prompt="x" * 400) == Estimate(0, 0)
