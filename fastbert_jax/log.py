"""What a command prints: `--quiet` leaves only results and errors, `--json` keeps standard output for JSON."""

from __future__ import annotations

import datetime
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastbert_jax import stopping

if TYPE_CHECKING:
    from rich.progress import Task

LINE_SECONDS = 60.0
"""Without a terminal, progress is printed this often."""
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
def progress_bar(
    name: str, *, total: int | None, unit: str, done: int = 0, hidden: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Progress on standard error: a bar, or a line a minute where it is no terminal; yields `advance(count, note)`.

    With a count of 0, a note says what begins now and may take long; its line is printed at once. `advance` raises what
    Ctrl-C has asked for, see `stopping`.

    Args:
      total: how many units there are; None where it is not known.
      unit: what is counted, as in `12.3 steps/s`.
      done: units that were done before.
      hidden: print nothing, as with `--quiet`.
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
    hidden, printed = hidden or _quiet, time.monotonic()
    with progress.Progress(
        *columns,
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
        # Otherwise rich sends standard output to the bar's terminal, even where it goes to a file.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(name, total=total, completed=done, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal printed
            stopping.look()
            speed = bar.tasks[task].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            bar.update(task, advance=count, rate=rate, note=note)
            now, says_what_begins = time.monotonic(), count == 0 and note
            if not hidden and not console.is_terminal and (says_what_begins or now >= printed + LINE_SECONDS):
                printed = now
                info(f"{name}: {', '.join(filter(None, (_reached(bar.tasks[task], unit), rate, note)))}")

        yield advance


def _reached(task: Task, unit: str) -> str:
    """How far a task is, and the time that is left where it is known."""
    of_all = "" if task.total is None else f" of {task.total:,.0f}"
    left = f", {datetime.timedelta(seconds=task.time_remaining)} left" if task.time_remaining else ""
    return f"{task.completed:,.0f}{of_all} {unit}{left}"
