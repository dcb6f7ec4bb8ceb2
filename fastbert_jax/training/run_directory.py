"""The directory of a run: which settings it belongs to, and what is written there besides checkpoints.

runs/NAME/  config.yaml  labels.json  data.json  metrics.jsonl  throughput.jsonl  checkpoints/STEP/  model/
            teacher_answers/  comparison.json  report.html  rejected.jsonl  tensorboard/  wandb/  loggers.json
            profile/
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastbert_jax.atomic_files import is_unfinished, lock_file, write_json, write_text
from fastbert_jax.config import TrainConfig
from fastbert_jax.config_yaml import from_yaml, to_flat, to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Unreadable

REJECTED = "rejected.jsonl"
"""The rows that could not be read, and why."""
FREE_KEYS = ("run", "evaluate", "mesh", "processes", "checkpoints", "log", "profile")
"""Settings that a resumed run may change: they do not touch what is trained."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def labels(self) -> Path:
        """The labels in their order."""
        return self.path / "labels.json"

    @property
    def metrics(self) -> Path:
        """The journal, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def throughput(self) -> Path:
        """How fast the run went, one JSON object a measurement; other than the journal, it grows with every restart."""
        return self.path / "throughput.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder a kept step."""
        return self.path / "checkpoints"

    @property
    def teacher_answers(self) -> Path:
        """What `distil.cache_teacher` keeps; of no use when training is done."""
        return self.path / "teacher_answers"

    @property
    def model(self) -> Path:
        """What inference loads; it is there when training is done."""
        return self.path / "model"

    @property
    def comparison(self) -> Path:
        """The measurements of the last evaluation."""
        return self.path / "comparison.json"

    @property
    def report(self) -> Path:
        """The same as a page of pictures."""
        return self.path / "report.html"

    @property
    def loggers(self) -> Path:
        """What the loggers' backends call this run."""
        return self.path / "loggers.json"

    @property
    def profile(self) -> Path:
        """What xprof opens, where `profile` was asked for."""
        return self.path / "profile"

    @property
    def data(self) -> Path:
        """Number and checksum of the texts that the run trains on."""
        return self.path / "data.json"

    def claim(self, config: TrainConfig, labels: tuple[str, ...], data: dict[str, str]) -> None:
        """Make the directory this run's, or check that it already is.

        Args:
          data: for each set of texts that touches training, words that differ when the texts do.

        Raises:
          UserError: it holds a run with other settings, labels or texts (all differences are listed), or other files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                found = sorted(child.name for child in self.path.iterdir() if not self._is_unfinished(child))
                if found:
                    raise UserError(f"{self.path}: expected an empty or a run's directory, found {found[:5]}")
                write_json(self.labels, list(labels))
                write_json(self.data, data)
                write_text(self.config, to_yaml(config))  # last: it makes the directory a run's
        except OSError as error:
            raise UserError(f"--run {self.path}: expected a directory that can be written, found {error}") from None
        old, new = (to_flat(c) for c in (from_yaml(TrainConfig, self.config), config))
        changed = [key for key in new if old[key] != new[key] and key.split(".")[0] not in FREE_KEYS]
        if changed:
            differences = "\n".join(f"  {key}: there {old[key]!r}, now {new[key]!r}" for key in changed)
            raise UserError(
                f"{self.path}: expected the run that these settings began, found one with others:\n{differences}\n"
                "Give the same settings to resume it, or another --run to begin a new one."
            )
        self._compare(self.labels, list(labels))
        self._compare(self.data, data)

    def list_rejected(self, rows: Sequence[Unreadable]) -> None:
        """Write which rows were left out and why, one JSON object a line; nothing where there are none.

        Raises:
          UserError: the file cannot be written.
        """
        if not rows:
            return
        try:
            write_text(self.path / REJECTED, "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows))
        except OSError as error:
            raise UserError(f"{self.path / REJECTED}: expected to list the rows left out, found {error}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in the directory within the block; whatever ends the process ends that.

        Raises:
          UserError: somebody does.
        """
        with open(self._lock, "ab") as stream:
            lock_file(stream, self.path)
            yield

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def _is_unfinished(self, path: Path) -> bool:
        """What a claim that was cut short leaves."""
        return is_unfinished(path) or path in (self.labels, self.data, self._lock)

    def _compare(self, path: Path, expected: object) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected what the run began with, found {error}; begin a new --run") from None
        if found != expected:
            raise UserError(
                f"{path}: expected {expected}, found {found}; the data has changed since the run began: "
                "put it back to resume, or begin a new --run"
            )
