"""The GPUs of this machine, and over how many of them a model is spread."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.engine.gemmas import Preset
from gateway.errors import ConfigurationError
from gateway.settings import environment

MIB = 1024 * 1024

#: Share of a GPU's memory that an engine takes.
UTILISATION = 0.90
#: Bytes for activations and CUDA graphs on each GPU: about 3 GiB in the recipes' figures.
OVERHEAD_BYTES = 3 * 2**30


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU."""

    total_bytes: int
    capability: tuple[int, int] = (0, 0)
    """CUDA compute capability; 8.9 and above has FP8 arithmetic."""


def detect_gpus() -> list[GpuMemory]:
    """The GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves; none where there is no such tool, or it fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return visible(parse_gpus(answer.stdout), environment().get("CUDA_VISIBLE_DEVICES"))


def visible(gpus: Sequence[GpuMemory], devices: str | None) -> list[GpuMemory]:
    """Those that CUDA_VISIBLE_DEVICES names, by index; where it names UUIDs, as many as it names. None: all."""
    if devices is None:
        return list(gpus)
    names = [name.strip() for name in devices.split(",") if name.strip() not in ("", "-1")]
    if all(name.isdecimal() for name in names):
        return [gpus[int(name)] for name in names if int(name) < len(gpus)]
    return list(gpus[: len(names)])


def parse_gpus(listing: str) -> list[GpuMemory]:
    """Reads lines such as `81559, 9.0`: MiB of memory, compute capability."""
    found = []
    for line in listing.splitlines():
        memory, _, capability = (part.strip() for part in line.partition(","))
        if memory.isdecimal():
            major, _, minor = capability.partition(".")
            found.append(GpuMemory(int(memory) * MIB, (_number(major), _number(minor))))
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def valid_sizes(preset: Preset) -> list[int]:
    """The tensor-parallel sizes that vLLM takes for a model, up to 8.

    The attention heads must divide evenly; the heads of keys and values must divide, or be copied, evenly.
    """
    kv_heads = [preset.shape.sliding.heads, preset.shape.full.heads]
    return [
        size
        for size in (1, 2, 4, 8)
        if preset.shape.attention_heads % size == 0 and all(h % size == 0 or size % h == 0 for h in kv_heads)
    ]


def bytes_per_gpu(preset: Preset, size: int) -> int:
    """Bytes on each of `size` GPUs: weights, one sequence of full length, overhead.

    A head of keys and values that cannot be split is copied to the GPUs. The towers are copied too, which is left out:
    they are below 3 % of the weights of every model that needs more than one GPU.
    """
    shape, tokens = preset.shape, preset.max_model_len
    full = shape.full.bytes_per_token * tokens / min(size, shape.full.heads)
    sliding = shape.sliding.bytes_per_token * min(tokens, shape.window) / min(size, shape.sliding.heads)
    return int(preset.weight_bytes / size + full + sliding) + OVERHEAD_BYTES


def tensor_parallel_size(preset: Preset, gpus: Sequence[GpuMemory]) -> int:
    """The smallest number of GPUs that holds the model with its context; 1 on a machine without a GPU.

    Smallest, because two engines on one GPU each answer more than one engine on two. Raises ConfigurationError where
    no number of them is enough.
    """
    if not gpus:
        return 1
    room = min(gpu.total_bytes for gpu in gpus) * UTILISATION
    sizes = [size for size in valid_sizes(preset) if size <= len(gpus)]
    fitting = next((size for size in sizes if bytes_per_gpu(preset, size) <= room), None)
    if fitting is None:
        raise ConfigurationError(_too_big(preset, gpus, sizes[-1]))
    return fitting


def _too_big(preset: Preset, gpus: Sequence[GpuMemory], most: int) -> str:
    needed = bytes_per_gpu(preset, most) / UTILISATION / 2**30
    smallest = min(gpu.total_bytes for gpu in gpus) / 2**30
    return (
        f"{preset.name} with a context of {preset.max_model_len} tokens needs about {needed:.0f} GiB on each of {most} "
        f"GPU(s); the smallest of the {len(gpus)} here has {smallest:.0f} GiB. Serve a quantised variant (such as "
        "-qat-w4a16-ct or -FP8-dynamic), or try a shorter context:\n"
        f"  --tensor-parallel-size {most} --max-model-len 8192"
    )
