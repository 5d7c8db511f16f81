"""Engine and gateway are asked by meaning: right through the true chain, and wrong once the chain is broken.

A fault that leaves the shape of an answer alone, such as swapped colours, is seen by no other test. So that these
tests would see it, each fault is made here on purpose, before the request: with it the answers have to change.
"""

from __future__ import annotations

from collections.abc import Sequence

import openai
import pytest
from openai.types.chat import ChatCompletion

from gateway.media.budget import image_tokens
from gateway.settings import Family
from tests.engine.media import image_part, picture, text_part
from tests.meaning import faults
from tests.meaning.faults import Case, Gist, Part, gist

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

#: Pictures, or clips, of each kind.
CASES = 12
#: Share of right answers at least through the true chain, and of those that name what the broken one shows.
RIGHT = 0.8
#: Share of right answers at most that is left when the chain is broken; one colour of eight is guessed.
STILL_RIGHT = 0.25


def ask(client: openai.OpenAI, parts: Sequence[Part], **body: object) -> ChatCompletion:
    return client.chat.completions.create(
        model="gemma",
        messages=[{"role": "user", "content": list(parts)}],  # type: ignore[list-item,misc]
        max_tokens=48,
        temperature=0,
        extra_body=body,
    )


def answer(client: openai.OpenAI, parts: Sequence[Part]) -> Gist:
    return gist(ask(client, parts).choices[0].message.content or "")


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def judge(client: openai.OpenAI, cases: Sequence[Case]) -> None:
    """The whole ones are answered right, the broken ones wrong, and by what they show where that is known."""
    told = [(case, answer(client, case.whole), answer(client, case.broken)) for case in cases]
    shown = "\n".join(f"{case.answer}: {whole}, broken {broken}" for case, whole, broken in told)
    assert share([whole == case.answer for case, whole, _ in told]) >= RIGHT, shown
    assert share([broken == case.answer for case, _, broken in told]) <= STILL_RIGHT, shown
    known = [broken == case.mistaken for case, _, broken in told if case.mistaken]
    assert not known or share(known) >= RIGHT, shown


def test_a_photo_is_seen_upright_and_would_not_be_if_its_orientation_were_ignored(client: openai.OpenAI) -> None:
    judge(client, faults.turned(CASES))


def test_red_is_red_and_would_be_blue_if_channels_were_taken_in_the_wrong_order(client: openai.OpenAI) -> None:
    judge(client, faults.recoloured(CASES))


def test_keys_are_heard_at_any_rate_and_would_not_be_if_the_rate_were_ignored(client: openai.OpenAI) -> None:
    judge(client, faults.resampled(CASES))


def test_keys_on_one_side_are_heard_and_would_not_be_if_that_side_were_dropped(client: openai.OpenAI) -> None:
    judge(client, faults.one_sided(CASES))


def test_pictures_are_told_in_their_order_and_would_not_be_if_they_were_swapped(client: openai.OpenAI) -> None:
    judge(client, faults.swapped(CASES))


def test_both_pictures_are_seen_and_would_not_be_if_the_second_were_lost(client: openai.OpenAI) -> None:
    judge(client, faults.lost(CASES))


def test_both_pictures_are_seen_and_would_not_be_if_the_first_were_shown_twice(client: openai.OpenAI) -> None:
    judge(client, faults.repeated(CASES))


@pytest.mark.parametrize(("size", "budget"), [((640, 480), None), ((480, 640), None), ((640, 480), 280)])
def test_a_picture_costs_what_model_and_gateway_agree_on(
    client: openai.OpenAI, size: tuple[int, int], budget: int | None
) -> None:
    body = {} if budget is None else {"max_soft_tokens": budget}
    usage = ask(client, [image_part(picture(*size)), text_part("What do you see?")], **body).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    told = usage.prompt_tokens_details.model_dump()
    assert told["multimodal_tokens"] == {"image": image_tokens(*size, Family.GEMMA4, budget or 70)}
    assert told["image_tokens"] == told["multimodal_tokens"]["image"]
