"""Checkpoints of a run: whole states by step, through Orbax, the newest and the best kept.

A checkpoint directory appears under its final name only when it is complete (Orbax writes beside it and renames), so
a run that is killed while saving finds the one before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from fastbert_jax.errors import UserError

RANK = "rank"


@dataclasses.dataclass(frozen=True)
class Position:
    """Where in a recipe a checkpoint was taken; with the seed, all that data order and dropout depend on."""

    phase: str
    phase_step: int
    best_step: int | None
    """Run-wide step of the phase's best checkpoint so far; none in a phase that keeps its last step."""
    best_score: float | None


class Checkpoints:
    """The folder `checkpoints/` of a run. Steps count over the whole run."""

    def __init__(self, directory: Path) -> None:
        policies = ocp.training.preservation_policies
        self._directory = directory
        self._orbax = ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(2),
                    policies.BestN(
                        get_metric_fn=lambda metrics: tuple(metrics[RANK]), n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, tree: Any, position: Position, *, rank: tuple[int, float] | None) -> None:
        """Write a checkpoint and wait until it is complete; of the older ones the last and the best stay.

        Args:
          rank: phase number and score, for the best of the newest phase that has any; none: not in the running.

        Raises:
          UserError: the checkpoint could not be written (a full disk, say); earlier ones are untouched.
        """
        try:
            with _orbax_silent():
                saved = self._orbax.save(
                    step,
                    tree,
                    metrics=None if rank is None else {RANK: list(rank)},
                    custom_metadata=dataclasses.asdict(position),
                )
        except (OSError, ValueError, ocp.training.errors.StepAlreadyExistsError) as error:
            raise UserError(
                f"{self._directory / str(step)}: expected to write a checkpoint, found: {error}\n"
                "Earlier checkpoints are intact; make room or mend the directory, then run the same command again."
            ) from error
        if not saved:
            raise UserError(f"{self._directory}: expected a step above {self.latest()}, found {step}")

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        found = self._orbax.latest
        return None if found is None else found.step

    def position(self, step: int) -> Position:
        """Where in the recipe the checkpoint of `step` was taken."""
        return Position(**self._orbax.metadata(step).custom_metadata)

    def load(self, step: int, like: Any) -> Any:
        """The tree of `step`, with the shapes, dtypes and shardings of the jax arrays `like`.

        Raises:
          UserError: the checkpoint is damaged, or another model's.
        """
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
        try:
            return self._orbax.load(step, abstract)
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            raise UserError(
                f"{self._directory / str(step)}: expected a checkpoint of this model, found: {error}\n"
                "Delete that folder to go on from the checkpoint before it, or begin a new --run."
            ) from error

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
