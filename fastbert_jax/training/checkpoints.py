"""Checkpoints of a run: whole states by step, through Orbax, written while training goes on.

A checkpoint directory appears under its final name only when it is complete (Orbax writes beside it and renames), so
a run that is killed while saving finds the one before. Each carries checksums of its own, of every leaf and of every
file, as Orbax restores damaged bytes without noticing; a damaged one is put aside, and the one before it is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from fastbert_jax import processes
from fastbert_jax.errors import UserError
from fastbert_jax.training.array_checksums import leaf_checksums
from fastbert_jax.training.file_checksums import FILES, signed, write_checksums, wrong_files

RANK = "rank"
REFUSED = "checkpoints.refused"
"""Beside the checkpoints: those that were found damaged."""


@dataclasses.dataclass(frozen=True)
class Position:
    """Where in a recipe a checkpoint was taken; with the seed, all that data order and dropout depend on."""

    phase: str
    phase_step: int
    best_step: int | None
    """Run-wide step of the phase's best checkpoint so far; none in a phase that keeps its last step."""
    best_score: float | None


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was found and is whole."""

    step: int
    position: Position
    tree: Any


class DamagedError(UserError):
    """A checkpoint that does not hold what was saved."""


class Checkpoints:
    """The folder `checkpoints/` of a run. Steps count over the whole run."""

    def __init__(self, directory: Path, *, keep: int = 2, only_look: bool = False) -> None:
        """Open the folder, or make it.

        Args:
          keep: how many of the newest stay, beside the best.
          only_look: leave what a save has under way; without it, that is what a killed process left, and goes.
        """
        policies = ocp.training.preservation_policies
        self._directory = directory
        self._orbax = ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: tuple(metrics[RANK]), n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            cleanup_tmp_directories=not only_look,
        )
        self._under_way: int | None = None
        self._response: Any = None

    def save(self, step: int, tree: Any, position: Position, *, rank: tuple[int, float] | None) -> None:
        """Begin to write a checkpoint, when the one before is complete; of the older ones some stay.

        The arrays may be changed or given away as soon as this returns.

        Args:
          rank: phase number and score, for the best of the newest phase that has any; none: not in the running.

        Raises:
          UserError: the one before could not be written (a full disk, say), or this one cannot be begun.
        """
        self.wait()
        about = signed({"position": dataclasses.asdict(position), "leaves": leaf_checksums(tree)})
        metrics = None if rank is None else {RANK: list(rank)}
        with self._errors_of_saving(step):
            self._response = self._orbax.save_async(step, tree, metrics=metrics, custom_metadata=about)
        if self._response is None:
            raise UserError(f"{self._directory}: expected a step above {self.latest()}, found {step}")
        self._under_way = step

    def wait(self) -> None:
        """Return when the last `save` is complete on disk.

        Raises:
          UserError: it could not be written; earlier checkpoints are untouched.
        """
        if self._under_way is None:
            return
        step, self._under_way = self._under_way, None
        with self._errors_of_saving(step):
            processes.together(self._response.result)
        with self._errors_of_saving(step):
            processes.first_alone(lambda: write_checksums(self._directory / str(step)))

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

    def position(self, step: int) -> Position:
        """Where in the recipe the checkpoint of `step` was taken.

        Raises:
          DamagedError: what it says of itself has changed since it was saved.
        """
        return Position(**self._about(step)["position"])

    def newest(self, like_at: Callable[[Position], Any], *, refused: Callable[[str], None]) -> Restored | None:
        """The newest checkpoint that is whole; damaged ones are put aside, into `checkpoints.refused/`.

        Args:
          like_at: abstract arrays to load a checkpoint of that position into.
          refused: told the name of each damaged one, and what is wrong with it.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        for step in steps:
            try:
                position = processes.together(functools.partial(self.position, step))
                return Restored(step, position, self.load(step, like_at(position)))
            except UserError as error:
                refused(str(error))
            self.put_aside(step)
        if steps:
            raise UserError(
                f"{self._directory}: expected a whole checkpoint, found only damaged ones; begin a new --run"
            )
        return None

    def put_aside(self, step: int) -> None:
        """Move a damaged checkpoint into `checkpoints.refused/`."""
        processes.first_alone(lambda: self._move(step))
        self._orbax.reload()

    def _move(self, step: int) -> None:
        aside = self._directory.parent / REFUSED
        aside.mkdir(exist_ok=True)
        taken = len(list(aside.glob(f"{step}*")))
        (self._directory / str(step)).rename(aside / (f"{step}.{taken}" if taken else str(step)))

    def load(self, step: int, like: Any) -> Any:
        """The tree of `step`, with the shapes, dtypes and shardings of the (abstract) arrays `like`.

        Raises:
          DamagedError: the checkpoint is damaged, or another model's.
        """
        self.wait()
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        # Each process reads files of its own: all must have read theirs before they sum up together.
        about, tree = processes.together(lambda: (self._about(step), self._load(step, abstract)))
        self._compare(step, about, leaf_checksums(tree))
        return tree

    def _load(self, step: int, abstract: Any) -> Any:
        try:
            return self._orbax.load(step, abstract)
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            raise self._damaged(step, f"expected a checkpoint of this model, found: {error}") from error

    def verify(self, step: int) -> None:
        """Read a whole checkpoint and hold every leaf and every file against its checksum.

        Raises:
          DamagedError: with the names of all that differ.
        """
        self.wait()
        directory = self._directory / str(step)
        problems = []
        try:
            with _orbax_silent():
                about = self._about(step)
                self._compare(step, about, leaf_checksums(self._load_anyhow(step)))
        except DamagedError as error:
            problems.append(str(error))
        # A kill may come between the checkpoint and the list of its files; then its leaves' checksums must do.
        if (directory / FILES).exists():
            problems += wrong_files(directory)
        if problems:
            raise DamagedError("\n".join(problems))

    def _load_anyhow(self, step: int) -> Any:
        """The tree of `step` on one device, without knowing the model."""
        try:
            found = self._orbax.metadata(step).metadata
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), found)
            return self._orbax.load(step, abstract)
        except Exception as error:
            raise self._damaged(step, f"expected a checkpoint, found one that cannot be read: {error}") from error

    def _compare(self, step: int, about: dict[str, Any], found: dict[str, str]) -> None:
        expected = about["leaves"]
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise self._damaged(
                step, f"expected the values that were saved, found others in {', '.join(wrong[:5])}{more}"
            )

    def _about(self, step: int) -> dict[str, Any]:
        try:
            about = self._orbax.metadata(step).custom_metadata
            whole = about == signed({key: about[key] for key in ("position", "leaves")})
        except Exception as error:
            raise self._damaged(step, f"expected a checkpoint of ours, found: {error}") from error
        if not whole:
            raise self._damaged(step, "expected what was saved about it, found something else")
        return about

    def _damaged(self, step: int, problem: str) -> DamagedError:
        return DamagedError(f"{self._directory / str(step)}: {problem}")

    def close(self) -> None:
        """Release Orbax's threads. What went wrong in a save was raised by it; here Orbax would say it again."""
        with _orbax_silent(), contextlib.suppress(OSError, ValueError):
            self._orbax.close()


@contextlib.contextmanager
def _orbax_silent() -> Iterator[None]:
    """Without the tracebacks that Orbax's threads log of an error which it also raises: a thousand lines of them."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
