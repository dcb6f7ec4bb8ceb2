"""The batches of a phase as the loop takes them: each has a kind, and views of its texts and of what a recipe needs."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Generator

import jax

from fastbert_jax.text.batches import Batches
from fastbert_jax.training.kept_values import KeptValues
from fastbert_jax.training.terms import COMPUTED, KEPT, Kept, Tree, Views


class ViewStream(abc.ABC):
    """All batches of a phase by their position. Every process calls every function in the same order."""

    @property
    @abc.abstractmethod
    def batches_per_epoch(self) -> int: ...

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def views(self, start: int) -> Generator[tuple[str, Views]]:
        """The kind and the views of each batch from step `start` on; closing the iterator ends the work ahead."""

    def open(self, frozen: Tree, *, done: int) -> None:  # noqa: B027, most streams keep nothing
        """Begin, or go on after `done` steps, with these frozen parameters."""

    def keep(self, step: int, values_BxKxN: jax.Array) -> None:  # noqa: B027
        """Take what the case of step `step`, from 0, keeps; all processes' rows."""

    def settle(self, done: int) -> None:  # noqa: B027
        """Write what was kept to disk; called before the state after `done` steps is saved."""


class BatchStream(ViewStream):
    """Batches of texts: of the kind `computed`, or `kept` where an earlier epoch kept the values of all texts."""

    def __init__(self, batches: Batches, kept: KeptValues | None = None) -> None:
        self.batches = batches
        self._kept = kept

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.batches.batches_per_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def views(self, start: int) -> Generator[tuple[str, Views]]:
        """See `ViewStream`."""
        with contextlib.closing(self.batches.stream(start)) as stream:
            for step, batch in enumerate(stream, start):
                values_BxKxN = None if self._kept is None else self._kept.view(step)
                if values_BxKxN is None:
                    yield COMPUTED, {"batch": batch}
                else:
                    yield KEPT, {"batch": batch, "kept": Kept(values_BxKxN)}

    def open(self, frozen: Tree, *, done: int) -> None:
        """See `ViewStream`."""
        if self._kept is not None:
            self._kept.open(frozen, done=done)

    def keep(self, step: int, values_BxKxN: jax.Array) -> None:
        """See `ViewStream`."""
        if self._kept is not None:
            self._kept.keep(step, values_BxKxN)

    def settle(self, done: int) -> None:
        """See `ViewStream`."""
        if self._kept is not None:
            self._kept.settle(done)
