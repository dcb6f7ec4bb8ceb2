"""What a command prints: `--quiet` leaves only results and errors, `--json` keeps standard output for JSON."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastbert_jax import stopping

_quiet = _json = False


def configure(*, quiet: bool = False, json: bool = False) -> None:
    """Set what this process prints from here on: only results, or only JSON on standard output."""
    global _quiet, _json
    _quiet, _json = quiet, json


def info(words: str) -> None:
    """Print a remark on a result to standard error, unless quiet."""
    if not _quiet:
        print(words, file=sys.stderr, flush=True)


@functools.cache
def say_once(words: str) -> None:
    """Print a remark with `info`, the first time that it comes."""
    info(words)


def status(words: str) -> None:
    """Print the progress of a long command to standard output, or to standard error beside JSON, unless quiet."""
    if not _quiet:
        print(words, file=sys.stderr if _json else sys.stdout, flush=True)


def result(words: str) -> None:
    """Print the result in words to standard output, unless it is wanted as JSON."""
    if not _json:
        print(words, flush=True)


@contextmanager
def progress_bar(name: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error, hidden where it is no terminal and with `--quiet`; yields `advance(count, note)`.

    `advance` raises what Ctrl-C has asked for, see `stopping`.

    Args:
      total: how many units there are; None where it is not known.
      unit: what is counted, as in `12.3 steps/s`.
      done: units that were done before.
    """
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}  {task.fields[note]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(
        *columns,
        console=console,
        disable=_quiet or not console.is_terminal,
        transient=True,
        # Otherwise rich sends standard output to the bar's terminal, even where it goes to a file.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(name, total=total, completed=done, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            stopping.look()
            speed = bar.tasks[task].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} {unit}/s" if speed else "", note=note)

        yield advance
