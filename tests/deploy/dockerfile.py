"""Reads a Dockerfile: its stages, and their instructions with the build arguments filled in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: ${NAME} and $NAME, as Dockerfiles have them.
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")

#: Instructions whose variables the builder fills in; the shell does it for RUN.
EXPANDED = frozenset({"FROM", "COPY", "ENV", "LABEL", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL"})


@dataclass(frozen=True)
class Instruction:
    """One line of a stage."""

    name: str
    text: str
    """What follows the name, continued lines joined."""

    def words(self) -> list[str]:
        """The words of an exec form (`["a", "b"]`), or those that a shell would see."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)

    def flags(self) -> Mapping[str, str]:
        """`--from=build` and the like, in front of everything else."""
        leading = (word for word in self.text.split() if word.startswith("--"))
        return dict(word.removeprefix("--").split("=", 1) for word in leading if "=" in word)

    def pairs(self) -> Mapping[str, str]:
        """The `NAME=value` of ENV and LABEL."""
        return dict(word.split("=", 1) for word in shlex.split(self.text))


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    """An image, or an earlier stage."""
    instructions: Sequence[Instruction] = field(default_factory=tuple)

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """The one that counts, where a later one replaces those before. Raises IndexError where there is none."""
        return self.all(name)[-1]

    @property
    def environment(self) -> Mapping[str, str]:
        return {name: value for env in self.all("ENV") for name, value in env.pairs().items()}


def read(path: Path, arguments: Mapping[str, str] | None = None) -> dict[str, Stage]:
    """The stages by name, with `arguments` in place of the defaults of ARG."""
    given = dict(arguments or {})
    stages: dict[str, Stage] = {}
    known: dict[str, str] = {}
    lines: list[Instruction] = []
    for instruction in _filled(_instructions(path.read_text()), given, known):
        if instruction.name == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            lines = []
            stages[name] = Stage(name, base, lines)
        else:
            lines.append(instruction)
    return stages


def _filled(
    instructions: Iterator[Instruction], given: Mapping[str, str], known: dict[str, str]
) -> Iterator[Instruction]:
    for name, text in ((line.name, line.text) for line in instructions):
        if name == "ARG":
            key, _, default = text.partition("=")
            known[key] = given.get(key, default)
        filled = VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text) if name in EXPANDED else text
        yield Instruction(name, filled)


def _instructions(text: str) -> Iterator[Instruction]:
    kept = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in "\n".join(kept).replace("\\\n", "").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield Instruction(name.upper(), rest.strip())
