"""What a run tells: `metrics.jsonl`, one line an event, and a progress bar where somebody watches."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Journal:
    """Writes events to `metrics.jsonl` and words to the terminal.

    Every event has `step`, counted over the whole run. Opening a journal at a step forgets what was logged after it,
    so that a resumed run's file reads as if it had never stopped.
    """

    def __init__(self, path: Path, *, start_step: int) -> None:
        self._path = path
        self._console = Console(stderr=True)
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= start_step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, path)
        self._file = path.open("a", buffering=1)

    def log(self, event: str, *, step: int, values: Mapping[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")

    def say(self, words: str) -> None:
        """One line on standard output."""
        print(words, flush=True)

    @contextmanager
    def progress(self, name: str, *, total: int, done: int) -> Iterator[Any]:
        """A bar with rate and time left on standard error; yields `advance(loss)`. Silent when not a terminal."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}  loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        ) as bar:
            task = bar.add_task(name, total=total, completed=done, loss="-", rate="")

            def advance(loss: float) -> None:
                speed = bar.tasks[task].speed
                bar.update(task, advance=1, loss=f"{loss:.4f}", rate=f"{speed:.1f} steps/s" if speed else "")

            yield advance

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the line that a kill cut in two
        return float("inf")
