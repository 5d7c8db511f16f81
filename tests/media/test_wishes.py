"""One image budget for a request, by a written order of precedence."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidRequestError
from gateway.media.wishes import Budget, ImageWish, choose, number, of_request, options
from gateway.settings import Family, ModelSettings
from tests.media.samples import request


def wish(detail: str | None = None, max_soft_tokens: int | None = None) -> ImageWish:
    return ImageWish("messages[0].content[0].max_soft_tokens", detail, max_soft_tokens)


@pytest.mark.parametrize(
    ("wishes", "requested", "budget"),
    [
        ([], None, Budget()),
        ([], 560, Budget()),
        ([wish()], None, Budget()),
        ([wish("auto")], None, Budget()),
        ([wish("low")], None, Budget(70)),
        ([wish("high")], None, Budget(1120)),
        ([wish("original")], None, Budget(1120)),
        ([wish(None, 140)], None, Budget(140)),
        ([wish("high", 140)], None, Budget(140)),
        ([wish("high", 140)], 560, Budget(140)),
        ([wish("high")], 560, Budget(560)),
        ([wish()], 560, Budget(560)),
        ([wish("low"), wish("low")], None, Budget(70)),
        ([wish("low"), wish("high")], None, Budget(1120, (70, 1120))),
        ([wish("low"), wish()], None, Budget(280, (70, 280))),
        ([wish(), wish(None, 280)], None, Budget(280)),
        ([wish("low"), wish(None, 560), wish()], None, Budget(560, (70, 280, 560))),
        ([wish("low"), wish(None, 560)], 140, Budget(560, (140, 560))),
    ],
)
def test_the_first_that_is_given_counts_and_the_highest_wins(
    wishes: list[ImageWish], requested: int | None, budget: Budget
) -> None:
    assert choose(wishes, requested, Family.GEMMA4) == budget


def test_a_header_tells_of_images_that_disagree() -> None:
    assert Budget(1120, (70, 1120)).headers() == ((b"x-gemma-image-budget", b'1120; requested="70, 1120"'),)
    assert Budget(1120).headers() == ()


@pytest.mark.parametrize("family", [Family.GEMMA3, Family.GEMMA3N])
def test_gemma_3_ignores_detail_and_refuses_a_number(family: Family) -> None:
    assert choose([wish("low"), wish("high")], None, family) == Budget()
    with pytest.raises(InvalidRequestError, match="256"):
        choose([wish(None, 70)], None, family)
    with pytest.raises(InvalidRequestError, match="256"):
        choose([], 70, family)


@pytest.mark.parametrize("value", [0, -70, 71, 2240, 70.0, "70", True, [70], {}])
def test_only_the_five_budgets_pass(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="70, 140, 280, 560, 1120") as fault:
        number(value, "max_soft_tokens")
    assert fault.value.param == "max_soft_tokens"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_soft_tokens": None, "mm_processor_kwargs": None, "media_io_kwargs": None}, None),
        ({"media_io_kwargs": {}, "mm_processor_kwargs": {}}, None),
        ({"max_soft_tokens": 70}, 70),
        ({"mm_processor_kwargs": {"max_soft_tokens": 140}}, 140),
        ({"mm_processor_kwargs": {"images_kwargs": {"max_soft_tokens": 560}}}, 560),
        ({"max_soft_tokens": 70, "mm_processor_kwargs": {"max_soft_tokens": 70}}, 70),
    ],
)
def test_the_request_may_ask_in_three_places(fields: dict[str, Any], expected: int | None) -> None:
    assert of_request(request("/v1/chat/completions", fields)) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_soft_tokens": 100}, "max_soft_tokens"),
        ({"mm_processor_kwargs": {"max_soft_tokens": "70"}}, "mm_processor_kwargs.max_soft_tokens"),
        ({"mm_processor_kwargs": {"do_resize": False}}, "mm_processor_kwargs.do_resize"),
        ({"mm_processor_kwargs": {"images_kwargs": {"size": 9}}}, "mm_processor_kwargs.images_kwargs.size"),
        ({"mm_processor_kwargs": {"images_kwargs": [1]}}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": [1]}, "mm_processor_kwargs"),
        ({"media_io_kwargs": {"audio": {"sr": 9}}}, "media_io_kwargs.audio"),
        ({"media_io_kwargs": {"video": {"fps": 9}}}, "media_io_kwargs.video.fps"),
        ({"media_io_kwargs": {"video": 9}}, "media_io_kwargs.video"),
        ({"media_io_kwargs": {"video": {"num_frames": 0}}}, "media_io_kwargs.video.num_frames"),
        ({"max_soft_tokens": 70, "mm_processor_kwargs": {"max_soft_tokens": 140}}, "max_soft_tokens"),
    ],
)
def test_everything_else_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    asked = request("/v1/chat/completions", fields)
    with pytest.raises(InvalidRequestError) as fault:
        _ = options(asked, ModelSettings()), of_request(asked)
    assert fault.value.param == param
    assert param in fault.value.message
