"""Writes the profiles of the engine chart, with the arithmetic of their memory: `python -m tests.helm.profiles`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.engine.gemmas import SERVED_CONTEXT, SHAPES, KvLayers, Preset
from gateway.engine.gpus import OVERHEAD_BYTES, UTILISATION, valid_sizes
from tests.helm.rendering import CHARTS

FOLDER = CHARTS / "engine" / "profiles"
DOCUMENTATION = CHARTS.parent / "docs" / "helm-engine.md"
#: The table of the profiles in it.
TABLE = re.compile(r"^\|  \| l4 .*(?:\n\|.*)+", re.MULTILINE)
GIB, KIB = 2**30, 2**10
#: Tokens of context where a whole node is at hand.
LONG_CONTEXT = 131_072


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine is put on."""

    title: str
    mib: int
    """Memory of one GPU, as nvidia-smi tells it (memory.total)."""
    product: str
    """The label of NVIDIA's GPU feature discovery."""
    gpus: int = 8
    """On one node at most."""
    is_whole: bool = False
    """Whether the profile takes all GPUs of the node, for replicas, and a long context."""


MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "l4": Machine("L4 (24 GB)", 23_034, "NVIDIA-L4"),
        "a100-40": Machine("A100 (40 GB)", 40_960, "NVIDIA-A100-SXM4-40GB"),
        "a100-80": Machine("A100 (80 GB)", 81_920, "NVIDIA-A100-SXM4-80GB"),
        "h100": Machine("H100 (80 GB)", 81_559, "NVIDIA-H100-80GB-HBM3"),
        "h200": Machine("H200 (141 GB)", 143_771, "NVIDIA-H200"),
        "8xh100": Machine("H100 (80 GB), all eight of a node", 81_559, "NVIDIA-H100-80GB-HBM3", is_whole=True),
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One Gemma on one machine, with a number of GPUs for each replica. Bytes are those on each GPU."""

    preset: Preset
    machine: Machine
    tensor: int

    @property
    def context(self) -> int:
        """Tokens that the engine serves."""
        return min(self.preset.shape.context, LONG_CONTEXT if self.machine.is_whole else SERVED_CONTEXT)

    @property
    def step(self) -> int:
        """Tokens that are computed at once."""
        return int(str(self.preset.args["max-num-batched-tokens"]))

    @property
    def taken(self) -> float:
        """Bytes that vLLM takes."""
        return self.machine.mib * 2**20 * UTILISATION

    @property
    def weights(self) -> float:
        """Bytes of weights. Towers are copied to each GPU, which is left out, as in gateway.engine.gpus."""
        return self.preset.weight_bytes / self.tensor

    @property
    def left(self) -> float:
        """Bytes for keys and values."""
        return self.taken - self.weights - OVERHEAD_BYTES

    @property
    def sequence(self) -> float:
        """Bytes of one sequence of full length. vLLM plans the step in flight into the sliding layers on top of the
        window; heads that cannot be split are copied."""
        shape = self.preset.shape
        held = min(self.context, shape.window + self.step)
        return self._share(shape.full) * self.context + self._share(shape.sliding) * held

    def _share(self, layers: KvLayers) -> float:
        return layers.bytes_per_token / min(self.tensor, layers.heads)


def plans() -> Iterator[tuple[str, Plan]]:
    """Every Gemma on every machine, with the fewest GPUs that hold it, by the name of its file."""
    for name, shape in SHAPES.items():
        for slug, machine in MACHINES.items():
            preset = Preset(name, shape)
            sizes = (Plan(preset, machine, size) for size in valid_sizes(preset) if size <= machine.gpus)
            fitting = next(plan for plan in sizes if plan.sequence <= plan.left)
            yield f"values-{name.lower()}-{slug}.yaml", fitting


def text(plan: Plan) -> str:
    """The file."""
    return "\n".join([*_comment(plan), *_values(plan)]) + "\n"


def table() -> str:
    """GPUs of a replica and full sequences at once, for the documentation."""
    cells: dict[str, dict[str, str]] = {}
    for name, plan in plans():
        slug = name.removeprefix(f"values-{plan.preset.name.lower()}-").removesuffix(".yaml")
        sequences = plan.left / plan.sequence
        shown = f"{sequences:.1f}" if sequences < 10 else f"{sequences:.0f}"
        cells.setdefault(plan.preset.name, {})[slug] = f"{plan.tensor} · {shown}"
    rows = [["", *MACHINES], ["---"] * (1 + len(MACHINES))]
    rows += [[f"`{model.lower()}`", *(row[slug] for slug in MACHINES)] for model, row in cells.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _comment(plan: Plan) -> Iterator[str]:
    shape, size = plan.preset.shape, plan.tensor
    yield f"# {plan.preset.name} in bfloat16 on {plan.machine.title}. Written by `python -m tests.helm.profiles`."
    yield "# GiB on each GPU:"
    yield _row("memory", plan.machine.mib / KIB, f"{plan.machine.mib} MiB")
    yield _row("taken by vLLM", plan.taken / GIB, f"x {UTILISATION:.2f}")
    yield _row("weights", plan.weights / GIB, f"{shape.parameters_b:g}e9 parameters x 2 bytes / {size} GPU(s)")
    yield _row("activations, CUDA graphs", OVERHEAD_BYTES / GIB, "an estimate")
    yield _row("left for keys and values", plan.left / GIB, "taken - weights - activations")
    yield _row("one full sequence", plan.sequence / GIB, _sequence(plan))
    yield _row("such sequences at once", plan.left / plan.sequence, "left / one")


def _row(name: str, value: float, how: str) -> str:
    return f"#   {name:<25}{value:8.2f}  {how}"


def _sequence(plan: Plan) -> str:
    shape, size = plan.preset.shape, plan.tensor
    full, sliding = (layers.bytes_per_token // KIB for layers in (shape.full, shape.sliding))
    shares = (min(size, layers.heads) for layers in (shape.full, shape.sliding))
    by_full, by_sliding = (f" / {share}" if share > 1 else "" for share in shares)
    return f"{full} KiB x {plan.context}{by_full} + {sliding} KiB x ({shape.window} + {plan.step}){by_sliding}"


def _values(plan: Plan) -> Iterator[str]:
    yield f"model: google/{plan.preset.name}-it"
    yield f"parallelism: {{tensor: {plan.tensor}}}"
    if plan.machine.is_whole:
        yield f"replicas: {plan.machine.gpus // plan.tensor}"
    yield f"args: {{max-model-len: {plan.context}, max-num-batched-tokens: {plan.step}}}"
    # API server, engine core and cache of media 12 GiB, each worker 8: an estimate, as that of the cores.
    memory = 12 + 8 * plan.tensor
    yield "resources:"
    yield f'  requests: {{cpu: "{2 + 2 * plan.tensor}", memory: {memory}Gi}}'
    yield f"  limits: {{memory: {2 * memory}Gi}}"
    yield f"cache: {{size: {10 + 10 * -(-2 * plan.preset.weight_bytes // (10 * GIB))}Gi}}"
    yield f"nodeSelector: {{nvidia.com/gpu.product: {plan.machine.product}}}"


def main() -> None:
    """Writes them all, and the documentation's table."""
    FOLDER.mkdir(exist_ok=True)
    page = DOCUMENTATION.read_text()
    DOCUMENTATION.write_text(TABLE.sub(table(), page))
    for name, plan in plans():
        (FOLDER / name).write_text(text(plan))


if __name__ == "__main__":
    main()
