"""vLLM's arguments and environment for one model: the preset fills vLLM's own defaults, flags given by hand win."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.engine.gemmas import Preset, Value, cpu_args, cpu_kv_gib
from gateway.engine.gpus import UTILISATION, detect_gpus, tensor_parallel_size
from gateway.errors import ConfigurationError
from gateway.settings import add_to_environment_list, set_environment_defaults

#: The name of our entry points in vLLM's plugin groups.
PLUGIN = "gemma_gateway"

#: Arguments that are shown by their presence alone.
SECRET = frozenset({"api_key", "hf_token", "ssl_keyfile"})

#: Said otherwise, or not to be said at all.
UNSHOWN = frozenset({"model", "model_tag", "host", "port", "uds"})


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be served, and where."""

    model: str
    """A directory, or an id on the hub."""
    host: str | None
    port: int | None
    uds: str | None
    drain_seconds: float

    @property
    def served_name(self) -> str:
        """The model's name for clients, unless one is given: the hub id, or the directory's own name."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument that differs from vLLM's own default."""

    name: str
    value: Any
    preset: bool
    """From the preset; else it was given by hand."""

    def __str__(self) -> str:
        shown = "***" if self.name in SECRET else _text(self.value)
        return f"--{self.name.replace('_', '-')} {shown}{' (preset)' if self.preset else ''}"


@dataclass(frozen=True, slots=True)
class Arguments:
    """vLLM's arguments, and which of them are worth telling."""

    namespace: Namespace
    effective: Sequence[Argument]


def prepare_environment(model: str, preset: Preset) -> None:
    """Sets what vLLM reads from the environment only, before it is imported. What the operator has set stays."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if Path(model).is_dir() else {}
    set_environment_defaults(
        {
            "VLLM_CPU_KVCACHE_SPACE": str(cpu_kv_gib(preset)),
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
            # Width times height; as the gateway's media.max_image_pixels.
            "VLLM_MAX_IMAGE_PIXELS": "40000000",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # The default, fork, does not go with threads and CUDA.
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            **offline,
        }
    )
    add_to_environment_list("VLLM_PLUGINS", PLUGIN)


def parse(target: Target, preset: Preset, given: Sequence[str]) -> Arguments:
    """Parses the flags `given` with the parser of `vllm serve`, whose defaults are the preset's where it has any.

    Raises ConfigurationError for flags that do not go together or with this command; a flag that vLLM does not know
    ends the process with code 2 and a usage message, as in any argparse program.
    """
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    parser = vllm_parser()
    plain = parser.parse_args([])
    parser.set_defaults(**dict(_defaults(target, preset, has_size=_has_size(given))))
    preset_only, namespace = parser.parse_args([]), parser.parse_args(list(given))
    _refuse_other_servers(namespace)
    namespace.model = target.model
    for name in ("host", "port", "uds"):
        value = getattr(target, name)
        if value is not None:
            setattr(namespace, name, value)
    try:
        validate_parsed_serve_args(namespace)
    except (TypeError, ValueError) as fault:
        raise ConfigurationError(str(fault)) from fault
    _bind_cpu_threads(namespace.tensor_parallel_size)
    return Arguments(namespace, list(_effective(plain, preset_only, namespace)))


def vllm_parser() -> Any:
    """The argument parser of `vllm serve`."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser(prog="gemma-gateway engine MODEL", add_help=False))


def hardware_args(preset: Preset, *, has_size: bool = False) -> Mapping[str, Value]:
    """The flags that suit the hardware here. Raises ConfigurationError where the model does not fit.

    Where the operator gives the number of GPUs (`has_size`) it stays so: with fewer tokens of context, other precision
    of keys and values, or more nodes, a model fits where it would not by our reckoning.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return cpu_args(preset)
    size = 1 if has_size else tensor_parallel_size(preset, detect_gpus())
    return {"gpu-memory-utilization": UTILISATION, "tensor-parallel-size": size}


def _has_size(given: Sequence[str]) -> bool:
    parser = vllm_parser()
    parser.set_defaults(tensor_parallel_size=None)
    return parser.parse_args(list(given)).tensor_parallel_size is not None


def _defaults(target: Target, preset: Preset, *, has_size: bool) -> Iterator[tuple[str, Any]]:
    ours: dict[str, Value] = {
        "served-model-name": [target.served_name],
        "shutdown-timeout": math.ceil(target.drain_seconds),
    }
    for name, value in {**preset.args, **hardware_args(preset, has_size=has_size), **ours}.items():
        # A text is parsed as if it had been given on the command line.
        yield name.replace("-", "_"), json.dumps(value) if isinstance(value, Mapping) else value


def _refuse_other_servers(namespace: Namespace) -> None:
    is_alone = namespace.headless and namespace.node_rank == 0
    if is_alone or namespace.grpc or (namespace.api_server_count or 1) > 1:
        raise ConfigurationError(
            "--headless, --grpc and --api-server-count above 1 are not for this command: it runs one HTTP server. "
            "For more throughput run more engines, and name each under `engines` in the gateway's configuration."
        )


def _bind_cpu_threads(size: int) -> None:
    """Gives each tensor-parallel rank its own cores: vLLM does so only where every rank has its own NUMA node."""
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    cores = sorted(os.sched_getaffinity(0))
    if nodes < size <= len(cores):
        set_environment_defaults({"VLLM_CPU_OMP_THREADS_BIND": thread_binding(cores, size)})


def thread_binding(cores: Sequence[int], ranks: int) -> str:
    """The cores divided evenly among the ranks, as vLLM writes it: `0,1|2,3`."""
    share = len(cores) // ranks
    return "|".join(",".join(map(str, cores[i * share : (i + 1) * share])) for i in range(ranks))


def _effective(plain: Namespace, preset_only: Namespace, namespace: Namespace) -> Iterator[Argument]:
    for name, value in sorted(vars(namespace).items()):
        if name not in UNSHOWN and value != getattr(plain, name):
            yield Argument(name, value, preset=value == getattr(preset_only, name))


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | bool) else str(value)
