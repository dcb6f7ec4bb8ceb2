"""What a run tells: `metrics.jsonl`, one line an event, and words on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastbert_jax.whole_files import write_text


class Journal:
    """Writes events to `metrics.jsonl` and words to the terminal.

    Every event has `step`, counted over the whole run. Opening a journal at a step forgets what was logged after it,
    so that a resumed run's file reads as if it had never stopped.
    """

    def __init__(self, path: Path, *, start_step: int) -> None:
        self._path = path
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= start_step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)

    def log(self, event: str, *, step: int, values: Mapping[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")

    def say(self, words: str) -> None:
        """One line on standard output."""
        print(words, flush=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the line that a kill cut in two
        return float("inf")
