"""What a phase remembers of its texts from one epoch to the next, as the loop sees it. By itself: nothing."""

from __future__ import annotations

import jax

from fastbert_jax.training.recipe import Known, Tree


class Memory:
    """The memory of a phase without a shortcut. Steps count within the phase; every process calls every function."""

    def open(self, frozen: Tree, *, done: int) -> None:
        """Begin, or go on after `done` steps.

        Args:
          frozen: the parameters that what is remembered depends on.

        Raises:
          UserError: what is remembered cannot be read or written.
        """

    def known(self, step: int) -> Known | None:
        """What is known of this process's rows of the batch of `step`, counted from 0; None: compute it."""
        return None

    def keep(self, step: int, kept_BxKxN: jax.Array) -> None:
        """Remember what the step on that batch has handed out, all processes' rows."""

    def settle(self, done: int) -> None:
        """See that what was kept is on disk; called before the state after `done` steps is saved.

        Raises:
          UserError: it cannot be written.
        """
