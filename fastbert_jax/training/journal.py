"""What a run tells: `metrics.jsonl`, one line an event, the loggers that were asked for, and words on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fastbert_jax import processes
from fastbert_jax.atomic_files import write_text
from fastbert_jax.log import status
from fastbert_jax.training.loggers.every_logger import Loggers

DEV_EVENT = "dev"
"""The event of a measurement on the dev set; a training step's is its phase's name."""
MOST_DEV_POINTS = 300
"""Measurements that `dev_points` gives; of more, some that are spread evenly, the last one always among them."""


class Journal:
    """Writes events to `metrics.jsonl` and the loggers, and words to the terminal; of many processes, the first does.

    Every event has `step`, counted over the whole run. `resume` forgets what was logged after a step, so that a
    resumed run's file reads as if it had never stopped.
    """

    def __init__(self, path: Path, loggers: Loggers | None = None) -> None:
        self._path, self._loggers = path, loggers or Loggers()
        self._speaks = processes.is_first()
        self._file: IO[str] | None = None

    def resume(self, step: int) -> None:
        """Begin to write, after what was logged up to `step`; 0: anew."""
        if not self._speaks:
            return
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step(line) <= step]
            write_text(self._path, "".join(line + "\n" for line in kept))
        self._file = self._path.open("a", buffering=1)
        self._loggers.resume(step)

    def log(self, event: str, *, step: int, values: Mapping[str, Any]) -> None:
        """Append one line, and tell the loggers."""
        if self._file is not None:
            self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self._loggers.write(event, values, step=step)

    def say(self, words: str) -> None:
        """Words on standard output."""
        if self._speaks:
            status(words)

    def close(self) -> None:
        """Close the file; the loggers are for their owner to close."""
        if self._file is not None:
            self._file.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # the line that a kill cut in two
        return float("inf")


def dev_points(metrics: Path) -> list[dict[str, Any]]:
    """The dev set's measurements in `metrics.jsonl`, in the order of their steps; none where there is no such file.

    Each holds its `step` over the whole run, the `phase` of the training step before it, and for each exit, in the
    order of the layers, its `accuracy` and its cross entropy (`loss`).
    """
    if not metrics.exists():
        return []
    points, phase = [], ""
    with metrics.open(encoding="utf-8") as lines:
        for values in map(json.loads, lines):
            if values["event"] == DEV_EVENT:
                points.append({"phase": phase} | {key: values[key] for key in ("step", "accuracy", "loss")})
            else:
                phase = values["event"]
    every = -(-len(points) // MOST_DEV_POINTS) or 1
    return points[::-1][::every][::-1]
