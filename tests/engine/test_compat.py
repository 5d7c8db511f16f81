"""The fixes for vLLM and its CPU backend: each operation fails without its fix and works with it.

They run in processes of their own, which load no plugin (VLLM_PLUGINS is empty) but what the program applies.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib.util import find_spec

import pytest

from gateway.engine.compat.image_attention import Segment, segments
from gateway.settings import environment

PRODUCT_OF_TRANSPOSED = """
    import torch
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.randn(64, 32), requires_grad=False)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    x = torch.randn(1, 32, 10).transpose(1, 2)
    assert x.stride(-1) != 1
    result = utils.cpu_unquantized_gemm(layer, x, layer.weight)
    print(torch.allclose(result, torch.nn.functional.linear(x, layer.weight), atol=1e-4))
"""

IMPORT_OF_IMAGE_PROCESSORS = """
    from transformers import Gemma4ImageProcessor
    print(Gemma4ImageProcessor.__name__)
"""

CLIP_AT_44_KHZ = """
    import numpy as np
    from vllm.multimodal.parse import MultiModalDataParser

    clip = np.sin(np.arange(44_100) / 20).astype("float32")
    items = MultiModalDataParser(target_sr=16_000, target_channels=1).parse_mm_data({"audio": (clip, 44_100)})
    print(len(items["audio"].get(0)))
"""

PNG_WITH_BROKEN_PIXELS = """
    import io
    from PIL import Image
    from vllm.multimodal.media.image import ImageMediaIO

    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[2_000:2_100] = bytes(100)
    try:
        ImageMediaIO().load_bytes(bytes(data))
        print("read")
    except ValueError as fault:
        print(fault)
"""

#: A prompt of 70 tokens whose positions 8 to 39 are an image, computed in two steps, beside a text of 20 tokens, with
#: the builder, the implementation and the kernel of vLLM, against torch's attention with the mask that Gemma defines.
ATTENTION_OVER_AN_IMAGE = """
    from types import SimpleNamespace

    import torch
    import vllm.v1.attention.backends.cpu_attn as cpu
    from vllm import _custom_ops as ops

    torch.manual_seed(0)
    HEADS, KV_HEADS, DIM, BLOCK, WINDOW, FIRST, LAST = 4, 2, 32, 32, 48, 8, 39
    isa = cpu._get_attn_isa(torch.float32, BLOCK, DIM, "auto")
    builder = object.__new__(cpu.CPUAttentionMetadataBuilder)
    vars(builder).update(
        num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=DIM, dtype=torch.float32, window_size=WINDOW, isa=isa,
        block_size=BLOCK, kv_cache_dtype="auto", is_cross_attention=False, is_encoder_only_attention=False,
    )
    attention = object.__new__(cpu.CPUAttentionBackendImpl)
    vars(attention).update(
        scale=DIM**-0.5, sliding_window=WINDOW, alibi_slopes=None, logits_soft_cap=0, attn_type="decoder", sinks=None,
        kv_cache_dtype="auto", num_heads=HEADS, num_kv_heads=KV_HEADS, head_size=DIM,
    )
    layer = SimpleNamespace(_k_scale_float=1.0, _v_scale_float=1.0, isa=isa)
    cache = torch.zeros(8, KV_HEADS, BLOCK, 2 * DIM)
    tables = torch.tensor([[1, 4, 2], [5, 0, 0]], dtype=torch.int32)
    lengths = [70, 20]
    q, k, v = ([torch.randn(n, h, DIM) for n in lengths] for h in (HEADS, KV_HEADS, KV_HEADS))

    def step(begin, end):
        counts = [e - b for b, e in zip(begin, end)]
        flat = lambda parts: torch.cat([p[b:e] for p, b, e in zip(parts, begin, end)])
        slots = [tables[r][p // BLOCK] * BLOCK + p % BLOCK for r in (0, 1) for p in range(begin[r], end[r])]
        common = SimpleNamespace(
            num_reqs=2, num_actual_tokens=sum(counts), max_query_len=max(counts), max_seq_len=max(end), causal=True,
            query_start_loc=torch.tensor([0, counts[0], sum(counts)], dtype=torch.int32),
            seq_lens=torch.tensor(end, dtype=torch.int32), block_table_tensor=tables,
            slot_mapping=torch.stack(slots).to(torch.int64), mm_req_doc_ranges={0: [(FIRST, LAST)]},
        )
        metadata = builder.build(0, common)
        attention.do_kv_cache_update(layer, flat(k), flat(v), cache, common.slot_mapping)
        output = torch.empty(sum(counts), HEADS, DIM)
        attention.forward(layer, flat(q), flat(k), flat(v), cache, metadata, output=output)
        return output.split(counts)

    def reference(row, masked):
        n = lengths[row]
        at = torch.arange(n)
        mask = (at[None] <= at[:, None]) & (at[:, None] - at[None] < WINDOW)
        if masked:
            inside = (at >= FIRST) & (at <= LAST)
            mask |= inside[:, None] & inside[None]
        spread = lambda x: x[row].transpose(0, 1).repeat_interleave(HEADS // KV_HEADS, 0)
        return torch.nn.functional.scaled_dot_product_attention(
            q[row].transpose(0, 1), spread(k), spread(v), attn_mask=mask
        ).transpose(0, 1)

    # The image's last tokens come in the second step, as a prefix-cache hit would have it; then plain decoding.
    first, second, third = step([0, 0], [40, 12]), step([40, 12], [69, 19]), step([69, 19], [70, 20])
    wrong = [
        name
        for row, name in ((0, "image"), (1, "text"))
        if not torch.allclose(torch.cat([first[row], second[row], third[row]]), reference(row, row == 0), atol=1e-5)
    ]
    print("wrong:", *wrong)
"""


#: Applies the plugin, then runs each operation: its last line, or its exception.
HARNESS = """
import contextlib, io, json, sys
from gateway.engine import compat
compat.platform()
{setup}
compat.register()
{teardown}
outcome = {{}}
for name, program in json.loads(sys.argv[1]).items():
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            exec(program, {{}})
        outcome[name] = told.getvalue().splitlines()[-1]
    except Exception as fault:
        outcome[name] = f"{{type(fault).__name__}}: {{fault}}"
print(json.dumps(outcome))
"""

ON_CPU = HARNESS.format(
    setup="from vllm.model_executor.layers import utils",
    teardown="""
once = utils.cpu_unquantized_gemm
compat.platform(), compat.register()
assert utils.cpu_unquantized_gemm is once
""",
)
ON_GPU = HARNESS.format(
    setup="""
from vllm.platforms import current_platform
kind = type(current_platform)
is_cpu, kind.is_cpu = kind.is_cpu, lambda self: False
""",
    teardown="kind.is_cpu = is_cpu",
)

PROGRAMS = {
    "gemm": textwrap.dedent(PRODUCT_OF_TRANSPOSED),
    "imports": textwrap.dedent(IMPORT_OF_IMAGE_PROCESSORS),
    "attention": textwrap.dedent(ATTENTION_OVER_AN_IMAGE),
    "resampler": textwrap.dedent(CLIP_AT_44_KHZ),
    "broken image": textwrap.dedent(PNG_WITH_BROKEN_PIXELS),
}

Outcome = Mapping[str, str]


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**environment(), "VLLM_PLUGINS": "", "VLLM_LOGGING_LEVEL": "ERROR"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=variables, timeout=250
    )


def outcome(program: str) -> Outcome:
    result = python(program, json.dumps(PROGRAMS))
    assert result.returncode == 0, result.stderr
    told: Outcome = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    return told


@pytest.fixture(scope="module")
def fixed() -> Outcome:
    """What the operations come to with the plugin, applied twice."""
    return outcome(ON_CPU)


@pytest.fixture(scope="module")
def unfixed() -> Outcome:
    """The same where the plugin takes the platform for a GPU: of the CPU's fixes only torchvision's is applied."""
    return outcome(ON_GPU)


engine = pytest.mark.engine
slow = pytest.mark.timeout(300)


@engine
@slow
def test_a_product_with_a_transposed_input_fails_without_the_fix(unfixed: Outcome) -> None:
    assert "stride" in unfixed["gemm"]


@engine
@slow
def test_a_product_with_a_transposed_input_is_right_with_the_fix(fixed: Outcome) -> None:
    assert fixed["gemm"] == "True"


@engine
def test_image_tokens_are_attended_causally_without_the_fix(unfixed: Outcome) -> None:
    assert unfixed["attention"] == "wrong: image"


@engine
def test_image_tokens_see_one_another_with_the_fix_and_texts_stay_causal(fixed: Outcome) -> None:
    assert fixed["attention"] == "wrong:"


@engine
def test_a_clip_at_44_khz_cannot_be_parsed_without_the_fix(unfixed: Outcome) -> None:
    if find_spec("torchaudio") is not None:
        pytest.skip("torchaudio is installed: nothing to fix")
    assert "Error" in unfixed["resampler"]


@engine
def test_a_clip_at_44_khz_becomes_16_khz_with_the_fix(fixed: Outcome) -> None:
    assert fixed["resampler"] == "16000"


@engine
def test_an_image_with_broken_pixels_is_read_without_the_fix() -> None:
    assert (
        python(f"from gateway.engine import compat; compat.platform()\n{PROGRAMS['broken image']}").stdout == "read\n"
    )


@engine
def test_an_image_with_broken_pixels_is_refused_with_the_fix_on_any_hardware(fixed: Outcome, unfixed: Outcome) -> None:
    assert fixed["broken image"] == unfixed["broken image"]
    assert fixed["broken image"].startswith("Failed to load image: ")


@engine
def test_image_processors_cannot_be_imported_without_the_fix() -> None:
    if python("import torchvision").returncode == 0:
        pytest.skip("this torchvision matches its torch: nothing to fix")
    assert "Gemma4ImageProcessor" in python(PROGRAMS["imports"]).stderr


@engine
def test_image_processors_can_be_imported_with_the_fix(fixed: Outcome) -> None:
    assert fixed["imports"] == "Gemma4ImageProcessor"


def test_only_the_image_queries_of_this_step_are_computed_again() -> None:
    # Two requests in a batch: one computes positions 10 to 29 of 30, one positions 0 to 4 of 5.
    ranges = {0: [(2, 8), (5, 14), (20, 40)], 1: [(1, 3)]}
    assert segments(ranges, [0, 20, 25], [30, 5]) == [
        Segment(row=0, first_query=0, queries=5, key_end=15),
        Segment(row=0, first_query=10, queries=10, key_end=30),
        Segment(row=1, first_query=21, queries=3, key_end=4),
    ]


def test_a_decoding_step_has_no_image_queries() -> None:
    assert segments({0: [(2, 8)]}, [0, 1], [50]) == []
