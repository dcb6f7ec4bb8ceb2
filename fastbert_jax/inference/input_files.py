"""The inputs of the predict command, the output of each, and which of them this process answers."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastbert_jax.errors import UserError
from fastbert_jax.text.filesystem import expand, is_file, place_of, without_compression
from fastbert_jax.text.sources import BUILTIN, STDIN, TFDS

NAME = "{}"
"""What stands for the input's name in the name of an output."""
STDOUT = "-"
LAUNCHERS = (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
"""Where Slurm and Open MPI say how many processes there are, and which this is."""


@dataclass(frozen=True)
class Process:
    """One of several processes that run the same command."""

    index: int
    """From 0."""
    count: int
    source: str = ""
    """The launcher's variables that say so; empty when the command does, or nothing does."""

    def share(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """The inputs of this process and their outputs; every input belongs to exactly one process."""
        return dict(list(outputs.items())[self.index :: self.count])

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}" + (f" ({self.source})" if self.source else "")


def this_process(count: int, index: int, environment: Mapping[str, str]) -> Process:
    """The process that the command names, else the one that its launcher names, else the only one.

    Args:
      count: how many processes there are; 0: not given.
      index: which one this is, from 0; -1: not given.

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
            return Process(numbers[1], numbers[0], " and ".join(names))
    return Process(0, 1)


def outputs_of(inputs: Sequence[str], output: str) -> dict[str, str]:
    """Every input with its output, in order; the files that a pattern matches are sorted.

    Raises:
      UserError: a pattern that no file matches, several inputs for one output, or an output that is an input.
    """
    found = [name for given in inputs for name in (expand((given,), key="--input") if _is_pattern(given) else [given])]
    several = len(found) > 1 or any(_is_pattern(name) for name in inputs)
    if several and NAME not in output:
        raise UserError(
            f"--output: expected a name with {NAME}, which each input's own name replaces, for the {len(found)} inputs,"
            f" found {output!r}; write 'answers/{NAME}.jsonl'"
        )
    by_stem: dict[str, str] = {}
    for name in found:
        stem = stem_of(name)
        if stem in by_stem:
            raise UserError(
                f"--input: {by_stem[stem]} and {name} would have the same output, as both are named {stem!r}; "
                "answer them in two commands, with different outputs"
            )
        by_stem[stem] = name
    outputs = {name: output.replace(NAME, stem) for stem, name in by_stem.items()}
    for place in outputs.values():
        _require_no_input(place, found, inputs)
    return outputs


def stem_of(name: str) -> str:
    """An input's name without its directory and its endings: `a` for `texts/a.jsonl.gz`."""
    if name == STDIN:
        return "stdin"
    if name.startswith((BUILTIN, TFDS)):
        return re.sub("[:/#]", "_", name)
    return without_compression(name).stem


def _is_pattern(name: str) -> bool:
    """Whether a name is a pattern and not that of a file."""
    return glob.has_magic(name) and not name.startswith((BUILTIN, TFDS)) and not is_file(place_of(name))


def _require_no_input(output: str, found: Sequence[str], patterns: Sequence[str]) -> None:
    """Refuse an output that is an input, or that the same command would take for an input the next time."""
    if output == STDOUT:
        return
    path = _absolute(output)
    is_input = any(os.path.realpath(path) == os.path.realpath(_absolute(name)) for name in found)
    if is_input or any(_is_pattern(name) and Path(path).match(_absolute(name)) for name in patterns):
        raise UserError(f"--output: {output!r} is one of the inputs, or matches them; use another directory or ending")


def _absolute(name: str) -> str:
    return os.path.abspath(os.path.expanduser(name))
