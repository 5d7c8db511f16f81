"""Trains the demonstration model. Imports torch.

`python -m gateway.demo.training DIRECTORY --hours 6` goes on where DIRECTORY stands; see docs/demo-model.md.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from gateway.demo import checkpoints
from gateway.demo.checkpoints import Standing, Training
from gateway.demo.features import IGNORED, NO_EDGE, Batch, Encoder
from gateway.demo.group import ALONE, Group, together
from gateway.demo.lessons.curriculum import SCHEDULES, Course, Split, lessons, stage
from gateway.errors import ConfigurationError

RATE, LAST_RATE, WARM_UP = 2e-3, 0.02, 0.02
"""The highest learning rate, the last as a fraction of it, and the fraction of the training in which it rises."""
WEIGHT_DECAY, LONGEST_GRADIENT = 0.05, 1.0
#: Seconds between two lines of the log, and between two checkpoints.
LOG_EVERY, SAVE_EVERY = 30.0, 600.0
#: More would leave each of them hardly a lesson of a batch.
MOST_PROCESSES = 4

Key = tuple[str, int, int]
"""Schedule, stage, number of the step."""
Step = tuple[int, list[Batch]]
"""The stage and its batches."""


@dataclass(frozen=True)
class Plan:
    """What to train, and for how long: seconds of training or steps, whichever is given."""

    schedule: str = "full"
    seconds: float = 0.0
    steps: int = 0
    seed: int = 0
    rate: float = RATE
    first: Path | None = None
    """The directory of a model to begin with, in place of chance weights."""
    only: str = ""
    """Weights that do not have this in their name stay as they are."""

    def progress(self, standing: Standing) -> float:
        """The fraction of the training that is done."""
        return standing.step / self.steps if self.steps else standing.seconds / self.seconds

    def rate_at(self, progress: float) -> float:
        """The learning rate: up in a line, down in half a cosine."""
        if progress < WARM_UP:
            return self.rate * (progress / WARM_UP + 1e-3)
        down = (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP)))) / 2
        return self.rate * (LAST_RATE + (1 - LAST_RATE) * down)


class Steps:
    """Makes and encodes the batches of a step, in this process or in a worker."""

    def __init__(self, directory: Path, group: Group) -> None:
        self.directory, self.group = directory, group
        self.encoder: Encoder | None = None

    def __getitem__(self, key: Key) -> Step:
        if self.encoder is None:
            self.encoder = Encoder(self.directory)
        schedule, number_of_stage, number = key
        courses = SCHEDULES[schedule][number_of_stage].at(number)
        return number_of_stage, [self._batch(self.encoder, course, number) for course in courses]

    def _batch(self, encoder: Encoder, course: Course, number: int) -> Batch:
        part = replace(course, count=math.ceil(course.count / self.group.size))
        taught = lessons(part, Split.TRAIN, number * self.group.size + self.group.rank)
        return encoder.encode(taught.lessons, taught.grid, taught.offset)


class Feed:
    """Gives the batches of each step; workers, if any, make those of the next steps meanwhile."""

    def __init__(self, directory: Path, plan: Plan, standing: Standing, workers: int, group: Group) -> None:
        self.plan, self.standing = plan, standing
        keys: Any = self._keys()
        steps = Steps(directory, group)
        loader = DataLoader(steps, sampler=keys, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        self.steps: Iterator[Step] = iter(loader)

    def next(self, standing: Standing) -> Step:
        """The next step. A change of stage comes through once what workers hold is used up."""
        self.standing = standing
        return next(self.steps)

    def _keys(self) -> Iterator[Key]:
        stages = SCHEDULES[self.plan.schedule]
        for number in itertools.count(self.standing.step):
            yield self.plan.schedule, stages.index(stage(self.plan.progress(self.standing), stages)), number


@dataclass
class Log:
    """Losses by task since the last line."""

    began: float = field(default_factory=time.monotonic)
    examples: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, loss: float, count: int = 1) -> None:
        """Counts a loss towards the mean of its name."""
        self.sums[name] += loss
        self.counts[name] += count

    def line(self, plan: Plan, standing: Standing) -> str:
        """Where the training stands, how fast it is, and the mean losses."""
        means = " ".join(f"{name}={self.sums[name] / self.counts[name]:.3f}" for name in sorted(self.sums))
        speed = self.examples / max(1e-9, time.monotonic() - self.began)
        done = plan.progress(standing)
        return (
            f"{done:6.1%} {stage(done, SCHEDULES[plan.schedule]).name} step={standing.step}"
            f" examples={standing.examples} rate={plan.rate_at(done):.2e} examples/s={speed:.1f} {means}"
        )


def train(directory: Path, plan: Plan, workers: int = 0, *, compiled: bool = False, group: Group = ALONE) -> Standing:
    """Trains until the plan is fulfilled or a signal asks to end; the next run goes on from the checkpoint.

    In each process of a `group`, the first of which logs and saves.
    """
    directory.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _signals() as received:
        begin = partial(checkpoints.begin, directory, plan.seed, WEIGHT_DECAY, device, plan.first)
        training = group.in_turn(begin)
        _hold_others(training.model, plan.only)
        if compiled:
            _compile(training.model.model)
        feed = Feed(directory / checkpoints.SERVED, plan, training.standing, workers, group)
        log, saved = Log(), time.monotonic()
        while plan.progress(training.standing) < 1 and not group.mean(len(received)):
            training = _advance(training, plan, feed, log, group)
            if time.monotonic() - log.began > LOG_EVERY:
                _tell(log, plan, training, group)
                log = Log()
            if group.first and time.monotonic() - saved > SAVE_EVERY:
                checkpoints.save(directory, training)
                saved = time.monotonic()
        if log.examples:
            _tell(log, plan, training, group)
        if group.first:
            checkpoints.save(directory, training)
    return training.standing


def _tell(log: Log, plan: Plan, training: Training, group: Group) -> None:
    if group.first:
        click.echo(log.line(plan, training.standing))


def _hold_others(model: Any, only: str) -> None:
    """Raises ConfigurationError if `only` is in no name."""
    taught = {name for name, weight in model.named_parameters() if weight.requires_grad_(only in name).requires_grad}
    if not taught:
        raise ConfigurationError(f"no weight has {only} in its name, as audio_tower or vision_tower")


def _compile(model: Any) -> None:
    """Compiles the layers of both large parts, in place."""
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 1024
    for layer in model.vision_tower.encoder.layers:
        layer.compile(dynamic=True)
    for layer in model.language_model.layers:
        layer.compile(dynamic=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that gets the number of SIGTERM or SIGINT once one comes: the step at hand is finished and saved."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda which, _: received.append(which)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _advance(training: Training, plan: Plan, feed: Feed, log: Log, group: Group) -> Training:
    """One step further."""
    began = time.monotonic()
    training.optimizer.set_rate(plan.rate_at(plan.progress(training.standing)))
    number, batches = feed.next(training.standing)
    batches = [batch.to(training.device) for batch in batches]
    step(training, batches, SCHEDULES[plan.schedule][number].dense, log, group)
    count = sum(len(batch.tasks) for batch in batches) * group.size
    log.examples += count
    return replace(training, standing=training.standing.after(count, group.mean(time.monotonic() - began)))


def step(training: Training, batches: list[Batch], dense: float, log: Log, group: Group = ALONE) -> None:
    """One change of the weights, by the mean of the losses of all batches of the group."""
    training.optimizer.zero_grad()
    for batch in batches:
        loss = loss_of(training, batch, dense, log) / len(batches)
        loss.backward()
    every = (*training.model.parameters(), *training.heads.parameters())
    parameters = [parameter for parameter in every if parameter.requires_grad]
    group.share(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, LONGEST_GRADIENT)
    training.optimizer.step()


def loss_of(training: Training, batch: Batch, dense: float, log: Log) -> torch.Tensor:
    """Cross entropy of the answers, if there are, and the dense losses by their weight."""
    device = batch.labels.device
    if not len(batch.labels):
        with torch.autocast(device.type, torch.bfloat16):
            shown = training.model.model.get_image_features(**batch.inputs)
        return dense * _dense_loss(training, torch.cat(shown.pooler_output), batch.cells or {}, log)
    with torch.autocast(device.type, torch.bfloat16):
        made = training.model.model(**batch.inputs, use_cache=False)
        learnt = batch.labels != IGNORED
        logits = training.model.lm_head(made.last_hidden_state[learnt]).float()
    cap = training.model.config.text_config.final_logit_softcapping
    losses = functional.cross_entropy(cap * torch.tanh(logits / cap), batch.labels[learnt], reduction="none")
    _log_tasks(log, batch, learnt, losses.detach())
    total = losses.mean()
    if batch.edges is not None and dense:
        known = batch.edges != NO_EDGE
        edge = training.heads.edge_loss(made.last_hidden_state[known], batch.edges[known])
        log.add("~edge", float(edge.detach()))
        total = total + dense * edge
    for tokens, truth in ((made.image_hidden_states, batch.cells), (made.audio_hidden_states, batch.frames)):
        if truth is not None and dense:
            total = total + dense * _dense_loss(training, tokens, truth, log)
    return total


def _dense_loss(training: Training, tokens: torch.Tensor, truth: dict[str, torch.Tensor], log: Log) -> torch.Tensor:
    losses = training.heads.losses(tokens, truth)
    for name, loss in losses.items():
        log.add(f"~{name}", float(loss.detach()))
    return sum(losses.values(), torch.zeros((), device=tokens.device))


def _log_tasks(log: Log, batch: Batch, learnt: torch.Tensor, losses: torch.Tensor) -> None:
    sums = torch.zeros(learnt.shape, device=losses.device).masked_scatter(learnt, losses).sum(dim=1).tolist()
    for task, loss, count in zip(batch.tasks, sums, learnt.sum(dim=1).tolist(), strict=True):
        log.add(task, loss, count)


def _as_it_is(taught: Step) -> Step:
    return taught


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--hours", type=float, default=6.0, show_default=True, help="Time to train, all runs together.")
@click.option("--steps", type=int, default=0, help="Steps to train instead, for a result that does not hang on time.")
@click.option("--schedule", type=click.Choice(list(SCHEDULES)), default="full", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first weights.")
@click.option(
    "--first",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A model to begin with, or another training: then its heads are taken along.",
)
@click.option("--only", default="", help="Train only weights with this in their name: audio_tower, for instance.")
@click.option("--rate", type=float, default=RATE, show_default=True, help="The highest learning rate.")
@click.option(
    "--processes",
    type=int,
    default=lambda: 1 if torch.cuda.is_available() else min(MOST_PROCESSES, os.cpu_count() or 1),
    show_default="the cores, 4 at most; 1 with a GPU",
    help="Processes that share the lessons of each step.",
)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of torch in each of them.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that make lessons.")
@click.option("--compile", "compiled", is_flag=True, help="A quarter faster after some minutes; needs a C++ compiler.")
def main(
    directory: Path,
    hours: float,
    steps: int,
    schedule: str,
    seed: int,
    first: Path | None,
    only: str,
    rate: float,
    processes: int,
    threads: int,
    workers: int,
    compiled: bool,
) -> None:
    """Train the demonstration model in DIRECTORY, or go on with it; DIRECTORY/model can be served at any time."""
    torch.set_num_threads(threads)
    plan = Plan(schedule, hours * 3600, steps, seed, rate, first, only)
    try:
        together(processes, partial(train, directory, plan, workers, compiled=compiled))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
