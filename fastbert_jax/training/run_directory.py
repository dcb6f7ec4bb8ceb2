"""The directory of a run: its files, the settings that it belongs to, and which files have changed since.

runs/NAME/  config.yaml  labels.json  data.json  metrics.jsonl  throughput.jsonl  checkpoints/STEP/  model/
            teacher_answers/  comparison.json  report.html  mislabelled.csv  rejected.jsonl  tensorboard/  wandb/
            loggers.json  profile/
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from flax.traverse_util import flatten_dict

from fastbert_jax.atomic_files import (
    CHECKSUMS,
    changed_files,
    is_unfinished,
    lock_file,
    put_aside,
    read_file,
    remove_unfinished,
    unless_refused,
    user_path,
    write_json,
    write_text,
)
from fastbert_jax.config import TrainConfig
from fastbert_jax.config_yaml import from_yaml, to_dict, to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibration
from fastbert_jax.inference.loading import CARD
from fastbert_jax.log import status
from fastbert_jax.text.examples import Unreadable

REJECTED = "rejected.jsonl"
"""The rows that could not be read, and why."""
WRITE = "write there"
FREE_KEYS = ("run", "evaluate", "mesh", "processes", "checkpoints", "log", "profile")
"""Settings that a resumed run may change: they do not touch what is trained."""


class RunDirectory:
    """Paths of one run; `~` is the user's home."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = user_path(path)
        self.config = path / "config.yaml"  # the resolved settings; where it is, the directory is a run's
        self.labels = path / "labels.json"
        self.data = path / "data.json"  # number and checksum of the texts that the run trains on
        self.metrics = path / "metrics.jsonl"
        self.throughput = path / "throughput.jsonl"  # grows with every restart, other than the journal
        self.checkpoints = path / "checkpoints"
        self.teacher_answers = path / "teacher_answers"  # of no use when training is done
        self.model = path / "model"  # what inference loads; there when training is done
        self.comparison = path / "comparison.json"  # the measurements of the last evaluation
        self.report = path / "report.html"
        self.mislabelled = path / "mislabelled.csv"
        self.profile = path / "profile"
        self._lock = path / ".lock"

    def claim(self, config: TrainConfig, labels: tuple[str, ...], data: dict[str, str]) -> None:
        """Make the directory this run's, or check that it already is.

        Args:
          data: for each set of texts that affects training, words that differ when the texts do.

        A file of those that is damaged is put aside and written anew from this command, with a warning.

        Raises:
          UserError: it holds a run with other settings, labels or texts (all differences are listed), or other files,
            or cannot be written.
        """
        with unless_refused(f"--run {self.path}", WRITE):
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                ours = (self.labels, self.data, self._lock)  # what a claim that was stopped leaves
                found = sorted(p.name for p in self.path.iterdir() if p not in ours and not is_unfinished(p))
                if found:
                    raise UserError(f"{self.path}: expected an empty or a run's directory, found {found[:5]}")
                write_json(self.labels, list(labels))
                write_json(self.data, data)
                write_text(self.config, to_yaml(config))  # last: it makes the directory a run's
            for path in (self.config, self.labels, self.data, self.metrics, self.throughput, self._lock):
                if os.path.lexists(path) and not path.is_file():  # to open a FIFO would never end
                    put_aside(path, "expected a regular file")
            old = self._began_with(config)
        new = flatten_dict(to_dict(config), sep=".")
        changed = [key for key in old if old[key] != new[key] and key.split(".")[0] not in FREE_KEYS]
        if changed:
            differences = "\n".join(f"  {key}: there {old[key]!r}, now {new[key]!r}" for key in changed)
            raise UserError(
                f"{self.path} holds a run with other settings:\n{differences}\n"
                "Give the same settings to resume it, or another --run to begin a new one."
            )
        _check_same(self.labels, list(labels))
        _check_same(self.data, data)

    def _began_with(self, config: TrainConfig) -> dict[str, Any]:
        """The settings that the run began with, by flat names; only the recipe where it is another one."""
        try:
            recipe = dict(yaml.safe_load(read_file(self.config))).get("recipe")
        except (ValueError, TypeError, RecursionError, FileNotFoundError, yaml.YAMLError) as error:
            _replace(self.config, to_yaml(config), error)
            recipe = config.recipe
        if recipe != type(config).recipe:  # its settings have other names
            return {"recipe": recipe}
        began_with: dict[str, Any] = flatten_dict(to_dict(from_yaml(type(config), self.config)), sep=".")
        return began_with

    def list_rejected(self, rows: Sequence[Unreadable]) -> None:
        """Write which rows were left out and why, one JSON object a line; nothing where there are none.

        Raises:
          UserError: the file cannot be written.
        """
        if not rows:
            return
        records = ({"where": row.where, "problem": row.problem} for row in rows)
        with unless_refused(self.path / REJECTED, "list the rows left out"):
            write_text(self.path / REJECTED, "".join(json.dumps(record) + "\n" for record in records))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the directory within the block, however it ends.

        Raises:
          UserError: another process does.
        """
        with contextlib.ExitStack() as stack:
            with unless_refused(f"--run {self.path}", WRITE):
                lock_file(stack.enter_context(open(self._lock, "ab")), self.path)
                remove_unfinished(self.path)
            yield


def _replace(path: Path, text: str, problem: Exception) -> None:
    """Put aside a damaged file that says what the run began with, and write what this command says instead."""
    with unless_refused(path, "replace what cannot be read"):
        then = "; what this command gives is taken for what the run began with"
        if os.path.lexists(path):
            put_aside(path, f"cannot be read: {problem}", then)
        else:
            status(f"warning: {path} is gone{then}")
        write_text(path, text)


def _check_same(path: Path, expected: object) -> None:
    try:
        found = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        _replace(path, json.dumps(expected, indent=2, ensure_ascii=False) + "\n", error)
        return
    except OSError as error:
        raise UserError(f"{path}: expected what the run began with, found {error}; begin a new --run") from None
    if found != expected:
        raise UserError(
            f"{path}: expected {expected}, found {found}; the data has changed since the run began: "
            "restore it to resume, or begin a new --run"
        )


def verify_run(directory: str | Path) -> str:
    """Check every file of a run's checkpoints, model and teacher's answers; what is unchanged, in words.

    Raises:
      UserError: no run there, nothing to verify, or the names of all files that have changed.
    """
    run = RunDirectory(directory)
    if not os.path.isfile(run.config):  # unlike Path.is_file, also for a name that no file can have
        raise UserError(f"expected the directory of a run, with a config.yaml, found none in {run.path}")
    steps = sorted((int(path.name) for path in run.checkpoints.glob("*") if path.name.isdecimal()), reverse=True)
    parts = {f"checkpoint {step}": run.checkpoints / str(step) for step in steps}
    # A run that is stopped may leave a complete checkpoint, or incomplete answers, without their checksums.
    unknown = [
        f"{name}: cannot be checked, it has no {CHECKSUMS}"
        for name, path in parts.items()
        if not (path / CHECKSUMS).is_file()
    ]
    parts |= {"model": run.model, "teacher's answers": run.teacher_answers}
    whole, changed = [], []
    for name, path in parts.items():
        if (path / CHECKSUMS).is_file() or (path == run.model and path.is_dir()):
            written_later = frozenset({calibration.FILE, CARD} if path == run.model else ())
            problems = changed_files(path, may_change=written_later)
            changed += problems
            whole += [] if problems else [name]
    words = f"whole: {', '.join(whole) or 'nothing'}"
    if changed:
        raise UserError("\n".join([*changed, *unknown, words]))
    if not whole and not unknown:
        raise UserError(f"{directory}: expected checkpoints or a model, found neither; has the run begun?")
    return "\n".join([*unknown, f"{directory}: {words}"])
