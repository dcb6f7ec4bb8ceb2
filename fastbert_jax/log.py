"""What a command says beside its result: `--quiet` silences it, and `--json` keeps standard output for the numbers."""

from __future__ import annotations

import sys
from typing import NamedTuple


class _Output(NamedTuple):
    quiet: bool = False
    json: bool = False


_output = _Output()


def configure(*, quiet: bool = False, json: bool = False) -> None:
    """Set how this process speaks from here on: without notes, or with standard output for JSON alone."""
    global _output
    _output = _Output(quiet, json)


def is_quiet() -> bool:
    """Whether nothing but results and errors is asked for."""
    return _output.quiet


def info(words: str) -> None:
    """Say something about a result, on standard error; nothing when quiet."""
    if not _output.quiet:
        print(words, file=sys.stderr, flush=True)


def status(words: str) -> None:
    """Say how a long command goes, on standard output; on standard error beside JSON, nothing when quiet."""
    if not _output.quiet:
        print(words, file=sys.stderr if _output.json else sys.stdout, flush=True)


def result(words: str) -> None:
    """Give the result in words, on standard output; nothing where it is asked for as JSON."""
    if not _output.json:
        print(words, flush=True)
