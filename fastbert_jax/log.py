"""What a command prints: `--quiet` leaves only results and errors, `--json` keeps standard output for JSON."""

from __future__ import annotations

import sys
from typing import NamedTuple


class _Output(NamedTuple):
    quiet: bool = False
    json: bool = False


_output = _Output()


def configure(*, quiet: bool = False, json: bool = False) -> None:
    """Set what this process prints from here on: only results, or only JSON on standard output."""
    global _output
    _output = _Output(quiet, json)


def is_quiet() -> bool:
    """Whether only results and errors are printed."""
    return _output.quiet


def info(words: str) -> None:
    """Print a remark on a result to standard error, unless quiet."""
    if not _output.quiet:
        print(words, file=sys.stderr, flush=True)


def status(words: str) -> None:
    """Print the progress of a long command to standard output, or to standard error beside JSON, unless quiet."""
    if not _output.quiet:
        print(words, file=sys.stderr if _output.json else sys.stdout, flush=True)


def result(words: str) -> None:
    """Print the result in words to standard output, unless it is wanted as JSON."""
    if not _output.json:
        print(words, flush=True)
