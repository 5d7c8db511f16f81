"""Writes the tokenizer of a small Gemma, as plain JSON.

As in the released families it is a byte-pair encoding over text whose spaces are `▁`, which falls back to one token
per UTF-8 byte, so that every text can be encoded. The released ids are kept up to the newlines (110); what they place
above (bytes, words, media markers) follows at once, which keeps the embeddings small.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.settings import Family

#: Ids 0 to 4 of every released Gemma; 1 ends a text.
CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
FIRST_NEWLINE = 107
#: Runs of this many newlines are one token: media placeholders insert "\n\n" and may meet others.
NEWLINE_RUNS = 4

#: Characters that are one token; all others are as many as their UTF-8 has bytes.
VISIBLE = f"▁\t{string.digits}{string.ascii_letters}{string.punctuation}"
#: Words that are one token when a space precedes them; without them a prompt would be a token per character.
WORDS = """
a about after all also an and answer any are as at be because been but by can could day describe do does each even
find first for from get give go good had has have he her here him his how i if image in into is it its just know
like look made make many may me more most my new no not now of on one only or other our out over people please
question said say see she should so some sound such tell than that the their them then there these they thing this
time to two up us use very was way we well were what when where which who why will with word work would year yes
you your
"""

#: Markers of Gemma 4 with their released ids (vLLM's tool parser documents 48 and 49; the end of turn is 106).
GEMMA4_MARKERS = {
    "<|tool>": 46,
    "<tool|>": 47,
    "<|tool_call>": 48,
    "<tool_call|>": 49,
    "<|tool_response>": 50,
    "<tool_response|>": 51,
    '<|"|>': 52,
    "<|think|>": 98,
    "<|channel>": 100,
    "<channel|>": 101,
    "<|turn>": 105,
    "<turn|>": 106,
}
GEMMA3_MARKERS = {"<start_of_turn>": 105, "<end_of_turn>": 106}

#: The tokenizer attribute by which processors find a media marker, and the marker. Released ids are near 256,000.
GEMMA4_MEDIA = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
    "video_token": "<|video|>",
}
GEMMA3_MEDIA = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
GEMMA3N_MEDIA = {
    **GEMMA3_MEDIA,
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
    "audio_token": "<audio_soft_token>",
}

MARKERS: Mapping[Family, Mapping[str, int]] = {
    Family.GEMMA3: GEMMA3_MARKERS,
    Family.GEMMA3N: GEMMA3_MARKERS,
    Family.GEMMA4: GEMMA4_MARKERS,
}
MEDIA: Mapping[Family, Mapping[str, str]] = {
    Family.GEMMA3: GEMMA3_MEDIA,
    Family.GEMMA3N: GEMMA3N_MEDIA,
    Family.GEMMA4: GEMMA4_MEDIA,
}


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and the merges that lead to its longer tokens."""

    vocabulary: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    special: frozenset[str]
    """Control and media tokens, hidden from clients."""
    unused: frozenset[str]
    media: Mapping[str, str]
    """Attribute of the tokenizer to media marker."""

    @property
    def size(self) -> int:
        """Rows of the embedding: the vocabulary rounded up to 64, as vLLM pads it anyway."""
        return -(-len(self.vocabulary) // 64) * 64

    @property
    def audible(self) -> frozenset[int]:
        """Ids that are readable text by themselves: not control, not part of a character or of a word."""
        return frozenset(self.vocabulary[token] for token in ("\n", *VISIBLE, *_spaced_words()))

    def media_id(self, attribute: str) -> int:
        """The id of a media marker, such as `image_token`."""
        return self.vocabulary[self.media[attribute]]

    def write(self, directory: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        _write_json(directory / "tokenizer.json", self._document())
        _write_json(directory / "tokenizer_config.json", self._configuration())

    def _configuration(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "extra_special_tokens": dict(self.media),
        }

    def _document(self) -> dict[str, Any]:
        added = sorted(self.special | self.unused, key=self.vocabulary.__getitem__)
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [self._added(token) for token in added],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": None,
            "post_processor": _begin_with_bos(self.vocabulary["<bos>"]),
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                ],
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": dict(self.vocabulary),
                "merges": [list(pair) for pair in self.merges],
            },
        }

    def _added(self, token: str) -> dict[str, Any]:
        return {
            "id": self.vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in self.special,
        }


def build(family: Family) -> Tokenizer:
    """The tokenizer of a family: its control tokens and markers at their released ids, then all else."""
    placed = {token: index for index, token in enumerate(CONTROL)} | dict(MARKERS[family])
    by_index = {index: token for token, index in placed.items()}
    low = [by_index.get(index, f"<unused{index}>") for index in range(FIRST_NEWLINE)]
    merges = _newline_merges() + _word_merges()
    media = MEDIA[family]
    tokens = [
        *low,
        *("\n" * count for count in range(1, NEWLINE_RUNS + 1)),
        *media.values(),
        *_byte_tokens(),
        *VISIBLE,
        *("".join(pair) for pair in merges),
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    special = frozenset((*placed, *media.values()))
    return Tokenizer(vocabulary, merges, special, frozenset(low) - special, media)


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _spaced_words() -> list[str]:
    return [f"▁{word}" for word in WORDS.split()]


def _newline_merges() -> tuple[tuple[str, str], ...]:
    return (("\n", "\n"), ("\n\n", "\n"), ("\n\n", "\n\n"))


def _word_merges() -> tuple[tuple[str, str], ...]:
    """Grows each word from its leading space, one letter at a time: the longest known beginning wins."""
    return tuple(dict.fromkeys((word[:end], word[end]) for word in _spaced_words() for end in range(1, len(word))))


def _begin_with_bos(bos: int) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": "<bos>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<bos>", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [bos], "tokens": ["<bos>"]}},
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
