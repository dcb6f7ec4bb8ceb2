"""Checkpoints of a run: complete states by step, written by Orbax while training continues.

Orbax writes a checkpoint under another name and renames it when it is complete, so a run that is killed while it saves
finds the checkpoint before. As Orbax restores damaged bytes without an error, the checksums of a checkpoint's files are
written beside it, and compared before it is loaded; a damaged one is put aside, and the one before it is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from fastbert_jax import processes
from fastbert_jax.atomic_files import CHECKSUMS, MAKE_ROOM, changed_files, put_aside, unless_refused, write_checksums
from fastbert_jax.errors import UserError

SMALL_FILE = 2**20
"""Bytes; of a checkpoint that is not loaded, files up to this size are compared with their checksums."""
UNCHECKED = (
    f"it has no {CHECKSUMS}, so a change of its files cannot be found: the run was stopped before the checksums of "
    "this checkpoint were written, or they were removed"
)


@dataclasses.dataclass(frozen=True)
class Position:
    """Where in a recipe a checkpoint was taken; with the seed, all that data order and dropout depend on."""

    phase: str
    phase_step: int
    best_step: int | None
    """Run-wide step of the phase's best checkpoint so far; None in a phase that keeps its last step."""
    best_score: float | None


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was found and is whole."""

    step: int
    position: Position
    tree: Any


class Checkpoints:
    """The directory `checkpoints/` of a run. Steps count over the whole run."""

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        """Open the directory, or make it, and remove what a killed process left unfinished.

        Orbax reads small files of all checkpoints, and fails at one that is damaged: those are put aside before.

        Args:
          keep: how many of the newest stay, beside the best.

        Raises:
          UserError: the directory cannot be read or written.
        """
        self._directory, self._keep = directory, keep
        self._has_lost = False
        """Whether the first process has put one aside."""
        processes.first_alone(self._set_aside_damaged)
        self._orbax = self._opened()
        self._thread = ThreadPoolExecutor(1)
        self._save_under_way: Future[None] | None = None

    def _opened(self) -> ocp.training.Checkpointer:
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: tuple(metrics["rank"]), n=1, keep_checkpoints_without_metrics=False
        )
        try:
            return ocp.training.Checkpointer(
                self._directory.absolute(),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(self._keep), best]),
                cleanup_tmp_directories=True,
            )
        except Exception as error:  # of many kinds
            unchecked = [path for path in self._paths() if not (path / CHECKSUMS).is_file()]
            if not unchecked:
                raise UserError(f"{self._directory}: expected a directory of checkpoints, found: {error}") from error
            words = f"{unchecked[-1]}: expected a checkpoint, found: {error}"
            processes.first_alone(lambda: self._move(unchecked[-1], words))
            return self._opened()

    def _paths(self) -> list[Path]:
        """What is there under the names of steps, the newest last."""
        names = self._directory.iterdir() if self._directory.is_dir() else ()
        return sorted((path for path in names if path.name.isdecimal()), key=lambda path: int(path.name))

    def _set_aside_damaged(self) -> None:
        """Put aside what a look at the small files finds, and what cannot be checked where another one can."""
        if os.path.lexists(self._directory) and not self._directory.is_dir():
            with unless_refused(self._directory, "put it aside"):
                put_aside(self._directory, "expected a directory of checkpoints, found a file")
            self._has_lost = True
        paths = self._paths()
        checked = {
            path: changed_files(path, most_bytes=SMALL_FILE) for path in paths if os.path.lexists(path / CHECKSUMS)
        }
        for path in paths:
            problem = "\n".join(checked.get(path, []))
            if not path.is_dir():
                problem = f"{path}: expected a checkpoint, found a file"
            elif path not in checked and [] in checked.values():
                problem = f"{path}: {UNCHECKED}"
            if problem:
                self._move(path, problem)

    def _move(self, path: Path, problem: str) -> None:
        """Put a damaged checkpoint into `checkpoints.refused/`."""
        aside = self._directory.with_name(f"{self._directory.name}.refused")
        with unless_refused(f"{problem}\n{path}", "put it aside"):
            aside.mkdir(exist_ok=True)
            taken = len(list(aside.glob(f"{path.name}*")))
            place = path.rename(aside / (f"{path.name}.{taken}" if taken else path.name))
        self._has_lost = True
        processes.say(f"{problem}\nIt is now {place}")

    def save(self, step: int, tree: Any, position: Position, *, rank: tuple[int, float] | None) -> None:
        """Begin to write a checkpoint, when the one before is complete; of the older ones some stay.

        The arrays may be changed or given away as soon as this returns.

        Args:
          rank: phase number and score, to keep the best of the newest phase that has scores; None: no score.

        Raises:
          UserError: the one before could not be written (a full disk, say), or this one cannot be begun.
        """
        self.wait()
        metrics = None if rank is None else {"rank": list(rank)}
        about = {"position": dataclasses.asdict(position)}
        with self._saving(step):
            response = self._orbax.save_async(step, tree, metrics=metrics, custom_metadata=about)
        if response is None:
            raise UserError(f"{self._directory}: expected a step above {self.latest()}, found {step}")
        # In the background, as a kill may come long before the next save.
        self._save_under_way = self._thread.submit(self._complete, step, response)

    def wait(self) -> None:
        """Return when the last `save` is complete on disk.

        Raises:
          UserError: it could not be written; earlier checkpoints are untouched.
        """
        if self._save_under_way is not None:
            save, self._save_under_way = self._save_under_way, None
            processes.together(save.result)

    def _complete(self, step: int, response: Any) -> None:
        with self._saving(step):
            response.result()
            if processes.is_first():
                write_checksums(self._directory / str(step))

    @contextlib.contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        remedy = f"\nEarlier checkpoints are intact.{MAKE_ROOM}"
        with _orbax_silent(), unless_refused(self._directory / str(step), "write the checkpoint", remedy=remedy):
            try:
                yield
            except ValueError as error:  # TensorStore raises it where the disk is full
                raise OSError(str(error)) from error

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, newest first."""
        return sorted((found.step for found in self._orbax.checkpoints), reverse=True)

    def latest(self) -> int | None:
        """The newest of `steps`."""
        return next(iter(self.steps()), None)

    def newest(self, like_at: Callable[[Position], Any]) -> Restored | None:
        """The newest checkpoint that is whole; damaged ones are put aside, into `checkpoints.refused/`.

        Args:
          like_at: abstract arrays to load a checkpoint of that position into.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        while (step := self.latest()) is not None:
            try:
                return self._whole(step, like_at)
            except UserError as error:
                self.put_aside(step, str(error))
        processes.first_alone(self._require_none_lost)
        return None

    def _require_none_lost(self) -> None:
        if self._has_lost:
            raise UserError(
                f"{self._directory}: expected a whole checkpoint, found only damaged ones; begin a new --run, or give "
                "the same command again to begin this one anew"
            )

    def put_aside(self, step: int, problem: str) -> None:
        """Move a damaged checkpoint into `checkpoints.refused/`."""
        processes.first_alone(lambda: self._move(self._directory / str(step), problem))
        self._orbax.reload()

    def load(self, step: int, like: Any) -> Any:
        """The tree of `step`, with the shapes, dtypes and shardings of the (abstract) arrays `like`.

        Raises:
          UserError: the checkpoint is damaged or gone, or another model's.
        """
        self.wait()
        return self._whole(step, lambda position: like).tree

    def _whole(self, step: int, like_at: Callable[[Position], Any]) -> Restored:
        directory = self._directory / str(step)

        def check() -> None:
            if not directory.is_dir():
                raise UserError(f"{directory}: expected a checkpoint, found none")
            if not (directory / CHECKSUMS).is_file():
                processes.say(f"{directory}: {UNCHECKED}, like all other checkpoints; it is used without a check")
            elif problems := changed_files(directory):
                raise UserError("\n".join(problems))

        processes.first_alone(check)
        return processes.together(lambda: self._read(step, like_at))

    def _read(self, step: int, like_at: Callable[[Position], Any]) -> Restored:
        try:
            position = Position(**self._orbax.metadata(step).custom_metadata["position"])
            return Restored(step, position, self._orbax.load(step, like_at(position)))
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            raise UserError(
                f"{self._directory / str(step)}: expected a checkpoint of this model, found: {error}"
            ) from error

    def close(self) -> None:
        """Release the threads. The error of a save was raised by `wait`; here Orbax would raise it again."""
        self._thread.shutdown()
        with _orbax_silent(), contextlib.suppress(OSError, ValueError):
            self._orbax.close()


@contextlib.contextmanager
def _orbax_silent() -> Iterator[None]:
    """Without the tracebacks of a thousand lines that Orbax's threads log for an error which is also raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
