"""Which inputs there are, which output belongs to each, and which of them this process answers."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastbert_jax.errors import UserError
from fastbert_jax.text.filesystem import without_compression
from fastbert_jax.text.sources import BUILTIN, STDIN, TFDS

NAME = "{}"
"""What stands for the input's name in the name of an output."""
STDOUT = "-"
LAUNCHERS = (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
"""Where Slurm and Open MPI tell a process how many there are, and which it is."""


@dataclass(frozen=True)
class Task:
    """One input, and the output that its answers go to."""

    input: str
    output: str


@dataclass(frozen=True)
class Process:
    """One of several processes that run the same command."""

    index: int
    """From 0."""
    count: int
    told_by: str = ""
    """Where this was found; empty when the command told it, or nothing did."""

    def share(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks of this process; each is some process's, whatever the others do."""
        return list(tasks[self.index :: self.count])

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}" + (f" ({self.told_by})" if self.told_by else "")


def this_process(count: int, index: int, environment: Mapping[str, str]) -> Process:
    """The process that the command tells, else the one that its launcher tells, else the only one.

    Args:
      count: how many processes there are; 0: not told.
      index: which one this is, from 0; -1: not told.

    Raises:
      UserError: the launcher's numbers make no sense.
    """
    if count:
        return Process(index, count)
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            found = [environment[name] for name in names]
            numbers = [int(text) if text.isdecimal() else -1 for text in found]
            if not 0 <= numbers[1] < numbers[0]:
                raise UserError(
                    f"expected {names[0]} processes, of which this is {names[1]}, found {found[0]!r} and {found[1]!r}; "
                    "pass --process-count and --process-index"
                )
            return Process(numbers[1], numbers[0], told_by=" and ".join(names))
    return Process(0, 1)


def tasks_of(inputs: Sequence[str], output: str) -> list[Task]:
    """Every input with its output, in order; the files that a pattern matches are sorted.

    Raises:
      UserError: a pattern that no file matches, several inputs for one output, or an output that is an input.
    """
    found = [name for pattern in inputs for name in _expanded(pattern)]
    several = len(found) > 1 or any(_is_pattern(name) for name in inputs)
    if several and NAME not in output:
        raise UserError(
            f"output: expected a name with {NAME}, which each input's own name replaces, for the {len(found)} inputs, "
            f"found {output!r}; write 'answers/{NAME}.jsonl'"
        )
    by_stem: dict[str, str] = {}
    for name in found:
        stem = stem_of(name)
        if stem in by_stem:
            raise UserError(
                f"input: expected each name once, as the outputs take it, found {by_stem[stem]} and {name}, "
                f"which are both {stem!r}; answer them one after the other, with outputs of their own"
            )
        by_stem[stem] = name
    tasks = [Task(name, output.replace(NAME, stem)) for stem, name in by_stem.items()]
    for task in tasks:
        _require_no_input(task.output, found, inputs)
    return tasks


def stem_of(name: str) -> str:
    """An input's name without its directory and its endings: `a` for `texts/a.jsonl.gz`."""
    if name == STDIN:
        return "stdin"
    if name.startswith((BUILTIN, TFDS)):
        return re.sub("[:/#]", "_", name)
    return without_compression(name).stem


def _is_pattern(name: str) -> bool:
    """Whether a name is a pattern; one that is the name of a file is not."""
    return (
        not name.startswith((BUILTIN, TFDS)) and glob.has_magic(name) and not os.path.exists(os.path.expanduser(name))
    )


def _expanded(name: str) -> list[str]:
    if not _is_pattern(name):
        return [name]
    found = sorted(path for path in glob.glob(os.path.expanduser(name), recursive=True) if os.path.isfile(path))
    if not found:
        raise UserError(f"input: expected files, found none that match {name!r}; check the path")
    return found


def _require_no_input(output: str, found: Sequence[str], patterns: Sequence[str]) -> None:
    """Refuse an output in the place of an input, or one that the same command would take for an input next time."""
    if output == STDOUT:
        return
    path = _place(output)
    is_input = any(os.path.realpath(path) == os.path.realpath(_place(name)) for name in found)
    if is_input or any(_is_pattern(name) and Path(path).match(_place(name)) for name in patterns):
        raise UserError(
            f"output: expected a file that is no input, found {output!r}; choose another directory or ending"
        )


def _place(name: str) -> str:
    return os.path.abspath(os.path.expanduser(name))
