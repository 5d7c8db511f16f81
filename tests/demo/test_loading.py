"""The small Gemmas as transformers loads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.demo.model import Shape
from gateway.settings import Family
from tests.demo.loading import SmallGemma, load_model, load_processor

pytestmark = pytest.mark.engine

QUICK = [
    (Family.GEMMA4, Shape.E),
    (Family.GEMMA4, Shape.DENSE),
    (Family.GEMMA4, Shape.MOE),
    (Family.GEMMA3, Shape.E),
]
ALL = [*QUICK, pytest.param(Family.GEMMA3N, Shape.E, marks=pytest.mark.extended)]

HELLO = [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}]


@pytest.mark.parametrize(("family", "shape"), ALL)
def test_it_loads_and_answers_in_readable_text(family: Family, shape: Shape, small_gemma: SmallGemma) -> None:
    directory = small_gemma(family, shape)
    processor, model = load_processor(directory), load_model(directory)
    prompt = processor.apply_chat_template(
        HELLO, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert len(answer) == 16
    shown, all_of_it = (processor.decode(answer, skip_special_tokens=skip) for skip in (True, False))
    assert shown == all_of_it
    assert "\ufffd" not in shown
    assert len(set(answer.tolist())) > 4


@pytest.mark.parametrize(("family", "shape"), QUICK)
def test_it_ends_where_the_released_models_end(family: Family, shape: Shape, small_gemma: SmallGemma) -> None:
    model = load_model(small_gemma(family, shape))
    expected = [1, 106, 50] if family is Family.GEMMA4 else [1, 106]
    assert model.generation_config.eos_token_id == expected
    assert model.config.get_text_config().max_position_embeddings == 8192


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_the_tokenizer(small_gemma: SmallGemma, text: str) -> None:
    tokenizer = load_processor(small_gemma(Family.GEMMA4, Shape.E)).tokenizer
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_words_are_single_tokens_and_a_text_begins_with_bos(small_gemma: SmallGemma) -> None:
    tokenizer = load_processor(small_gemma(Family.GEMMA4, Shape.E)).tokenizer
    assert tokenizer.tokenize("X that sound") == ["X", "▁that", "▁sound"]
    assert tokenizer.encode("x")[0] == tokenizer.bos_token_id
