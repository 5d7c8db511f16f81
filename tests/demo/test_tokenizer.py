"""The vocabulary of the small Gemmas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.demo.tokenizer import build
from gateway.settings import Family

GEMMA4_IDS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<|tool_call>": 48, "<tool_call|>": 49}
GEMMA4_IDS |= {"<|tool_response>": 50, "<|turn>": 105, "<turn|>": 106, "\n": 107, "\n\n": 108}
GEMMA3_IDS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106, "\n\n": 108}


@pytest.mark.parametrize(
    ("family", "released"),
    [(Family.GEMMA4, GEMMA4_IDS), (Family.GEMMA3, GEMMA3_IDS), (Family.GEMMA3N, GEMMA3_IDS)],
)
def test_low_ids_are_those_of_the_released_family(family: Family, released: dict[str, int]) -> None:
    vocabulary = build(family).vocabulary
    assert {token: vocabulary[token] for token in released} == released


@pytest.mark.parametrize("family", Family)
def test_ids_are_dense_and_the_embedding_has_a_row_for_each(family: Family) -> None:
    tokenizer = build(family)
    assert sorted(tokenizer.vocabulary.values()) == list(range(len(tokenizer.vocabulary)))
    assert 0 <= tokenizer.size - len(tokenizer.vocabulary) < 64


@pytest.mark.parametrize("family", Family)
def test_every_byte_has_a_token_and_every_merge_its_result(family: Family) -> None:
    tokenizer = build(family)
    assert all(f"<0x{byte:02X}>" in tokenizer.vocabulary for byte in range(256))
    assert all("".join(pair) in tokenizer.vocabulary for pair in tokenizer.merges)


def test_what_a_random_model_says_is_text() -> None:
    tokenizer = build(Family.GEMMA4)
    tokens = {token for token, index in tokenizer.vocabulary.items() if index in tokenizer.audible}
    assert {"a", "7", "\n", "▁", "▁sound"} <= tokens
    assert not tokens & (tokenizer.special | tokenizer.unused | {"<0x41>", "▁soun"})


def test_the_files_name_the_media_markers(tmp_path: Path) -> None:
    build(Family.GEMMA4).write(tmp_path)
    configuration = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert configuration["extra_special_tokens"]["image_token"] == "<|image|>"
    added = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    assert {"<|image|>", "<|audio|>", "<|video|>", "<turn|>"} <= {token["content"] for token in added}
