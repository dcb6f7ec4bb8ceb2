"""The progress bar of long commands, on standard error; hidden where it is no terminal and with `--quiet`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastbert_jax.log import is_quiet


def shows_progress() -> bool:
    """Whether standard error is a terminal and `--quiet` is not given."""
    return Console(stderr=True).is_terminal and not is_quiet()


@contextmanager
def progress_bar(name: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yields `advance(count, note)`.

    Args:
      total: how many units there are; None where it is not known.
      unit: what is counted, as in `12.3 steps/s`.
      done: units that were done before.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}  {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Without this condition rich would send standard output to the bar's terminal, even where it goes to a file.
    with Progress(
        *columns, console=console, disable=not shows_progress(), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task(name, total=total, completed=done, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} {unit}/s" if speed else "", note=note)

        yield advance
