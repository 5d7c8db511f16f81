"""Processes that train one model together: each has some of the lessons of a step. Imports torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, multiprocessing

from gateway.settings.environment import set_environment_defaults

Done = TypeVar("Done")


@dataclass(frozen=True)
class Group:
    """The processes, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """The mean of all processes' values."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(shared)
        return float(shared) / self.size

    def in_turn(self, do: Callable[[], Done]) -> Done:
        """Does it in one process after the other: what they all write to the same files, for instance."""
        done = []
        for rank in range(self.size):
            if rank == self.rank:
                done.append(do())
            self.mean(0)
        return done[0]

    def share(self, parameters: Sequence[Any]) -> None:
        """Gives each parameter the mean of all processes' gradients."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad.copy_(part.view_as(parameter))


ALONE = Group()


def together(size: int, train: Callable[..., Any]) -> None:
    """Calls `train(group=...)` in as many processes, this one among them, and waits for all."""
    if size == 1:
        train(group=ALONE)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting, threads = Path(folder, "meeting"), torch.get_num_threads()
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_join, args=(Group(rank, size), meeting, threads, train), daemon=True)
            for rank in range(1, size)
        ]
        for other in others:
            other.start()
        _join(Group(0, size), meeting, threads, train)
        for other in others:
            other.join()


def _join(group: Group, meeting: Path, threads: int, train: Callable[..., Any]) -> None:
    torch.set_num_threads(threads)
    set_environment_defaults({"GLOO_SOCKET_IFNAME": "lo"})
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=group.rank, world_size=group.size)
    try:
        train(group=group)
    finally:
        distributed.destroy_process_group()
