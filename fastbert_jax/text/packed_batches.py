"""Batches of packed rows: several texts share a row, and every batch of a run has one static shape."""

from __future__ import annotations

import numpy as np

from fastbert_jax.text.batches import Batch, EpochBatches, Plan, TokenisedTexts, collate_rows, training_plan
from fastbert_jax.text.packing import pack


class PackedBatches(EpochBatches):
    """Rows of `max_length` tokens with up to `texts_per_row` texts each.

    Which texts share a row is settled once, by their lengths alone; each epoch brings the rows in another order.
    """

    def __init__(
        self,
        texts: TokenisedTexts,
        labels: np.ndarray | None,
        *,
        max_length: int,
        batch_size: int,
        epochs: int,
        seed: int,
        texts_per_row: int = 0,
        steps: int = 0,
        local_rows: np.ndarray | None = None,
    ) -> None:
        """Batches of `batch_size` rows; `labels` is int32 `[n]`, and `EpochBatches` tells the rest.

        Args:
          texts_per_row: K of every batch; 0: chosen from the lengths (`packing.choose_texts_per_row`).

        Raises:
          ValueError: a text longer than `max_length`.
        """
        self._labels, self._max_length, self._seed = labels, max_length, seed
        self.packed = pack(texts.lengths, max_length=max_length, texts_per_row=texts_per_row)
        super().__init__(
            texts,
            rows=len(self.packed),
            texts_per_row=self.packed.texts_per_row,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            local_rows=local_rows,
        )

    def __repr__(self) -> str:
        return (
            f"PackedBatches({len(self._texts)} texts in {len(self.packed)} rows, {len(self)} steps, "
            f"{self.batches_per_epoch} an epoch)"
        )

    @property
    def real_tokens(self) -> float:
        """Share of the rows' tokens that are not padding."""
        return float(self._texts.lengths.sum(dtype=np.int64) / max(len(self.packed) * self._max_length, 1))

    @property
    def words(self) -> str:
        """How well the texts are packed, in a sentence."""
        return (
            f"{len(self._texts)} texts share {len(self.packed)} rows of {self._max_length} tokens, up to "
            f"{self.packed.texts_per_row} in each; {self.real_tokens:.1%} of the tokens are not padding."
        )

    def _plan(self, epoch: int) -> Plan:
        lengths = np.broadcast_to(self._max_length, len(self.packed))
        return training_plan(
            lengths, buckets=(self._max_length,), batch_size=self._batch_size, seed=self._seed, epoch=epoch
        )

    def _members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.packed.members(rows)

    def _batch(self, rows: np.ndarray, *, batch_size: int, length: int) -> Batch:
        members, sizes = self._members(rows)
        return collate_rows(
            self._texts.take(members),
            sizes,
            batch_size=batch_size,
            length=length,
            texts_per_row=self.packed.texts_per_row,
            labels=None if self._labels is None else self._labels[members],
        )
