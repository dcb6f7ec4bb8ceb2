"""The batches of a phase as the loop takes them: each has a kind, and views of its texts and of what a recipe needs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import jax

from fastbert_jax.text.training_batches import Batches
from fastbert_jax.training.terms import COMPUTED, Views


class BatchStream:
    """All batches of a phase by their position, of the kind `computed`. A subclass may give other kinds and more views.

    Every process calls every function in the same order.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.batches.batches_per_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def views(self, start: int) -> Generator[tuple[str, Views]]:
        """The kind and the views of each batch from step `start` on; closing the iterator ends the work ahead."""
        with contextlib.closing(self.batches.stream(start)) as stream:
            for batch in stream:
                yield COMPUTED, {"batch": batch}

    def open(self, frozen: Any, *, done: int) -> None:
        """Begin, or go on after `done` steps, with these frozen parameters."""

    def keep(self, step: int, values_BxKxN: jax.Array) -> None:
        """Take what the case of step `step`, from 0, keeps, as an array of all processes' rows."""

    def settle(self, done: int) -> None:
        """Write what was kept to the disk; called before the state after `done` steps is saved."""
