"""Checkpoints of a run: complete states by step, written by Orbax while training continues.

Orbax writes a checkpoint under another name and renames it when it is complete, so a run that is killed while it saves
finds the checkpoint before. As Orbax restores damaged bytes without an error, the checksums of a checkpoint's files are
written beside it, and compared before it is loaded; a damaged one is put aside, and the one before it is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from fastbert_jax import processes
from fastbert_jax.atomic_files import CHECKSUMS, changed_files, write_checksums
from fastbert_jax.errors import UserError


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

        Args:
          keep: how many of the newest stay, beside the best.
        """
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: tuple(metrics["rank"]), n=1, keep_checkpoints_without_metrics=False
        )
        self._directory = directory
        self._orbax = ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )
        self._thread = ThreadPoolExecutor(1)
        self._save_under_way: tuple[int, Callable[[], object]] | None = None
        """Its step, and what returns when it is complete."""

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
        with self._errors_of_saving(step):
            response = self._orbax.save_async(step, tree, metrics=metrics, custom_metadata=about)
        if response is None:
            raise UserError(f"{self._directory}: expected a step above {self.latest()}, found {step}")
        # In the background, as a kill may come long before the next save.
        self._save_under_way = step, self._thread.submit(self._complete, step, response).result

    def wait(self) -> None:
        """Return when the last `save` is complete on disk.

        Raises:
          UserError: it could not be written; earlier checkpoints are untouched.
        """
        if self._save_under_way is not None:
            (step, complete), self._save_under_way = self._save_under_way, None
            with self._errors_of_saving(step):
                processes.together(complete)

    def _complete(self, step: int, response: Any) -> None:
        response.result()
        if processes.is_first():
            write_checksums(self._directory / str(step))

    @contextlib.contextmanager
    def _errors_of_saving(self, step: int) -> Iterator[None]:
        try:
            with _orbax_silent():
                yield
        except (OSError, ValueError, ocp.training.errors.StepAlreadyExistsError) as error:
            raise UserError(
                f"{self._directory / str(step)}: expected to write a checkpoint, found: {error}\n"
                "Earlier checkpoints are intact; make room or mend the directory, then run the same command again."
            ) from error

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, newest first."""
        return sorted((found.step for found in self._orbax.checkpoints), reverse=True)

    def latest(self) -> int | None:
        """The newest of `steps`."""
        return next(iter(self.steps()), None)

    def newest(self, like_at: Callable[[Position], Any], *, warn: Callable[[str], None]) -> Restored | None:
        """The newest checkpoint that is whole; damaged ones are put aside, into `checkpoints.refused/`.

        Args:
          like_at: abstract arrays to load a checkpoint of that position into.
          warn: gets the name of each damaged one, and what is wrong with it.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        for step in self.steps():
            try:
                return self._whole(step, like_at)
            except UserError as error:
                warn(str(error))
            self.put_aside(step)
            if not self.steps():
                raise UserError(
                    f"{self._directory}: expected a whole checkpoint, found only damaged ones; begin a new --run"
                )
        return None

    def put_aside(self, step: int) -> None:
        """Move a damaged checkpoint into `checkpoints.refused/`."""

        def move() -> None:
            aside = self._directory.with_name("checkpoints.refused")
            aside.mkdir(exist_ok=True)
            taken = len(list(aside.glob(f"{step}*")))
            (self._directory / str(step)).rename(aside / (f"{step}.{taken}" if taken else str(step)))

        processes.first_alone(move)
        self._orbax.reload()

    def load(self, step: int, like: Any) -> Any:
        """The tree of `step`, with the shapes, dtypes and shardings of the (abstract) arrays `like`.

        Raises:
          UserError: the checkpoint is damaged, or another model's.
        """
        self.wait()
        return self._whole(step, lambda position: like).tree

    def _whole(self, step: int, like_at: Callable[[Position], Any]) -> Restored:
        processes.first_alone(lambda: self._check(step))
        return processes.together(lambda: self._read(step, like_at))

    def _check(self, step: int) -> None:
        directory = self._directory / str(step)
        if (directory / CHECKSUMS).exists():
            if problems := changed_files(directory):
                raise UserError("\n".join(problems))
        elif step != self.steps()[-1]:
            raise UserError(f"{directory}: the run was stopped before the checksums of this checkpoint were written")
        else:  # there is none before it, and Orbax has renamed it, so it is complete
            write_checksums(directory)

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
