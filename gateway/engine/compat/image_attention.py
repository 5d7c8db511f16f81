"""Fix 3: image tokens get causal attention, silently.

In Gemma 3, and in the Gemma 4 sizes whose configuration says `use_bidirectional_attention: "vision"` (12B, 26B-A4B,
31B), the tokens of one image see one another. vLLM's CPU attention ignores that: it hands its kernel the batch as
causal sequences, and the answers are wrong without a word.

A query inside an image that spans positions s to e sees the keys 0 to e. That is what a sequence of length e + 1 sees
without a causal mask, so a second call of the same kernel, over the image spans alone, puts their output right; it
works on the paged cache, with prefix caching and tensor parallelism.

Not covered: an image of more tokens than the sliding window (Gemma 4's budget of 1120 with a window of 1024), whose
outermost tokens do not see all of it.

Superfluous once CPUAttentionMetadataBuilder in vllm/v1/attention/backends/cpu_attn.py reads `mm_req_doc_ranges` (0.32
does not; no issue was found).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """The queries of one image in one step. They attend to the keys before `key_end` of their sequence."""

    row: int
    """Index of the request in the batch."""
    first_query: int
    """Index of the first query in the batch's flat list of tokens."""
    queries: int
    """How many follow one another."""
    key_end: int
    """Position after the image's last token that is computed by now."""


def segments(
    ranges: Mapping[int, Sequence[tuple[int, int]]], query_starts: Sequence[int], lengths: Sequence[int]
) -> list[Segment]:
    """The image spans that have queries in this step.

    `ranges`: for each request its images' first and last position, both inclusive; `query_starts`: where each request's
    queries begin in the flat list, and its end; `lengths`: each request's length after this step, in tokens.
    """
    found = []
    for row, spans in ranges.items():
        start, length = query_starts[row], lengths[row]
        computed = length - (query_starts[row + 1] - start)
        for first, last in spans:
            begin, end = max(first, computed), min(last + 1, length)
            if begin < end:
                found.append(Segment(row, start + begin - computed, end - begin, end))
    return found


@dataclass(frozen=True, slots=True)
class SecondPass:
    """The image spans of a batch as a batch of their own, as the kernel takes it."""

    queries: Any
    """Indices into the flat list of tokens."""
    query_start_loc: Any
    seq_lens: Any
    block_table: Any
    schedule: Any
    """The kernel's division of the work among threads."""


@cache
def apply() -> None:
    """Wraps the CPU backend: the builder adds a SecondPass to its metadata, the implementation runs it."""
    from vllm.v1.attention.backends import cpu_attn

    builder, implementation = cpu_attn.CPUAttentionMetadataBuilder, cpu_attn.CPUAttentionBackendImpl
    plain_build, plain_forward = builder.build, implementation.forward

    # The parameters keep vLLM's names: it passes some by position, some by name.
    def build(self: Any, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        metadata = plain_build(self, common_prefix_len, common_attn_metadata, fast_build)
        # By this name, because Gemma 4 sets it to None for its global layers, which stay causal.
        metadata.mm_prefix_range = _second_pass(self, common_attn_metadata)
        return metadata

    def forward(
        self: Any,
        layer: Any,
        query: Any,
        key: Any,
        value: Any,
        kv_cache: Any,
        attn_metadata: Any,
        output: Any,
        **scales: Any,
    ) -> Any:
        result = plain_forward(self, layer, query, key, value, kv_cache, attn_metadata, output, **scales)
        second = getattr(attn_metadata, "mm_prefix_range", None)
        if second is not None and self.attn_type == "decoder":
            output[second.queries] = _attend(self, layer, query[second.queries], kv_cache, second)
        return result

    builder.build, implementation.forward = build, forward


def _second_pass(builder: Any, common: Any) -> SecondPass | None:
    ranges = common.mm_req_doc_ranges
    if not ranges:
        return None
    found = segments(ranges, common.query_start_loc.tolist(), common.seq_lens.tolist())
    return _as_batch(builder, common, found) if found else None


def _as_batch(builder: Any, common: Any, found: Sequence[Segment]) -> SecondPass:
    import torch

    lengths = torch.tensor([segment.key_end for segment in found], dtype=common.seq_lens.dtype)
    counts = torch.tensor([0, *(segment.queries for segment in found)])
    starts = counts.cumsum(0).to(common.query_start_loc.dtype)
    return SecondPass(
        queries=torch.cat([torch.arange(s.first_query, s.first_query + s.queries) for s in found]),
        query_start_loc=starts,
        seq_lens=lengths,
        block_table=common.block_table_tensor[[segment.row for segment in found]].contiguous(),
        schedule=_schedule(builder, lengths, starts),
    )


def _schedule(builder: Any, lengths: Any, starts: Any) -> Any:
    from vllm import _custom_ops as ops
    from vllm import envs

    return ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(lengths),
        num_heads=builder.num_heads,
        num_kv_heads=builder.num_kv_heads,
        head_dim=builder.head_dim,
        seq_lens=lengths,
        dtype=builder.dtype,
        query_start_loc=starts,
        causal=False,
        sliding_window_size=builder.window_size,
        isa=builder.isa,
        enable_kv_split=envs.VLLM_CPU_ATTN_SPLIT_KV,
        dynamic_causal=None,
        kv_cache_dtype=builder.kv_cache_dtype,
    )


def _attend(implementation: Any, layer: Any, query: Any, kv_cache: Any, second: SecondPass) -> Any:
    import torch
    from vllm import _custom_ops as ops

    blocks, heads, size, _ = kv_cache.size()
    # Keys and values share a block: the first half of its rows are keys.
    keys, values = kv_cache.view((blocks, heads, size * 2, -1)).chunk(2, dim=2)
    output = torch.empty_like(query)
    ops.cpu_attention_with_kv_cache(
        query=query,
        key_cache=keys,
        value_cache=values,
        output=output,
        query_start_loc=second.query_start_loc,
        seq_lens=second.seq_lens,
        scale=implementation.scale,
        causal=False,
        alibi_slopes=implementation.alibi_slopes,
        sliding_window=implementation.sliding_window,
        block_table=second.block_table,
        softcap=implementation.logits_soft_cap,
        scheduler_metadata=second.schedule,
        s_aux=implementation.sinks,
        dynamic_causal=None,
        k_scale=layer._k_scale_float,  # noqa: SLF001 - as vLLM's own backend reads it
        v_scale=layer._v_scale_float,  # noqa: SLF001
        kv_cache_dtype=implementation.kv_cache_dtype,
    )
    return output
