"""Fix 1: a matrix product whose input is transposed kills the engine core.

The CPU kernels (oneDNN and its siblings) demand that the last dimension lies dense in memory. Gemma 4's audio tower
hands them the transposed output of a convolution; with one clip in the batch no reshape on the way copies it, and the
kernel fails with `Expected a.stride(-1) == 1`. Quantised layers take other paths, which this does not cover.

Superfluous once `cpu_unquantized_gemm` in vllm/model_executor/layers/utils.py makes its input contiguous itself (0.32
does not; no issue was found).
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def apply() -> None:
    """Wraps vLLM's dispatch of such products; it is looked up anew at each call, so replacing the name suffices."""
    from vllm.model_executor.layers import utils

    product = utils.cpu_unquantized_gemm

    def cpu_unquantized_gemm(layer: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        return product(layer, x if x.stride(-1) == 1 else x.contiguous(), weight, bias)

    utils.cpu_unquantized_gemm = cpu_unquantized_gemm
