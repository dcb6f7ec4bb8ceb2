"""Batches of static shape: which rows share one, in which order, and how they become arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastbert_jax.text.tokenizer import Encoded

# Batches made ahead by `TrainingBatches.stream`, and the threads that make them.
PREFETCHED_BATCHES = 8
PREFETCH_THREADS = 2


class Batch(NamedTuple):
    """B rows of S tokens with up to K texts each; the one form that the model takes."""

    token_ids_BxS: np.ndarray
    """int32; 0 at padding."""
    token_type_BxS: np.ndarray
    """int32; 1 from a pair's second text on."""
    position_BxS: np.ndarray
    """int32; counts from 0 in every text."""
    text_BxS: np.ndarray
    """int32; 0 = padding, k = the row's k-th text."""
    cls_BxK: np.ndarray
    """int32; where each text's [CLS] stands in its row."""
    label_BxK: np.ndarray
    """int32; 0 where unknown."""
    valid_BxK: np.ndarray
    """bool; False where there is no text."""


def collate(
    encoded: Encoded,
    rows: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    length: int,
    labels: np.ndarray | None = None,
) -> Batch:
    """One text a row (K = 1): texts `rows` of `encoded`, padded to `[batch_size, length]`.

    Rows beyond `len(rows)` are all padding and not valid. `labels` is int32 `[n]`, one per text of `encoded`.

    Raises:
      ValueError: more rows than `batch_size`, or a text longer than `length`.
    """
    rows = np.asarray(rows, np.int64)
    lengths = encoded.lengths[rows]
    if len(rows) > batch_size or lengths.max(initial=0) > length:
        raise ValueError(
            f"expected up to {batch_size} texts of {length} tokens, found {len(rows)} of up to {lengths.max(initial=0)}"
        )
    column_S = np.arange(length, dtype=np.int32)
    filled_BxS = np.zeros((batch_size, length), bool)
    filled_BxS[: len(rows)] = column_S < lengths[:, None]
    source = np.concatenate([np.arange(encoded.offsets[r], encoded.offsets[r + 1]) for r in rows] or [np.zeros(0, int)])
    token_ids_BxS = np.zeros((batch_size, length), np.int32)
    token_type_BxS = np.zeros((batch_size, length), np.int32)
    token_ids_BxS[filled_BxS] = encoded.token_ids[source]
    token_type_BxS[filled_BxS] = encoded.token_types[source]
    label_BxK = np.zeros((batch_size, 1), np.int32)
    if labels is not None:
        label_BxK[: len(rows), 0] = labels[rows]
    return Batch(
        token_ids_BxS=token_ids_BxS,
        token_type_BxS=token_type_BxS,
        position_BxS=np.where(filled_BxS, column_S, np.int32(0)),
        text_BxS=filled_BxS.astype(np.int32),
        cls_BxK=np.zeros((batch_size, 1), np.int32),
        label_BxK=label_BxK,
        valid_BxK=(np.arange(batch_size) < len(rows))[:, None],
    )


@dataclass(frozen=True)
class BatchRows:
    """The texts of one batch (int64), and the static length they are padded to."""

    rows: np.ndarray
    length: int


def training_plan(
    lengths: np.ndarray, *, buckets: tuple[int, ...], batch_size: int, seed: int, epoch: int
) -> list[BatchRows]:
    """The batches of one epoch, a pure function of its arguments: every text once, in shuffled order.

    Texts are grouped by the smallest bucket that holds them. What is left over of a bucket moves up to the next
    longer one in use, so one batch at most is partial and there are always ceil(n / batch_size) of them.
    """
    key = [seed % 2**64, epoch]
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    shuffled = generator.permutation(len(lengths))
    bucket_of = _bucket_of(lengths, buckets)[shuffled]
    used = np.unique(bucket_of)
    batches: list[BatchRows] = []
    carried = np.zeros(0, np.int64)
    for bucket in used:
        rows = np.concatenate([carried, shuffled[bucket_of == bucket]])
        whole = len(rows) if bucket == used[-1] else len(rows) - len(rows) % batch_size
        batches += _cut(rows[:whole], batch_size, buckets[bucket])
        carried = rows[whole:]
    return [batches[i] for i in generator.permutation(len(batches))]


def inference_plan(
    lengths: np.ndarray, *, buckets: tuple[int, ...], batch_sizes: int | Sequence[int]
) -> list[BatchRows]:
    """Every text once, grouped by the smallest bucket that holds it, in input order; each bucket may end partial.

    Args:
      batch_sizes: texts per batch, one number or one per bucket.
    """
    sizes = np.broadcast_to(np.asarray(batch_sizes), len(buckets)).tolist()
    bucket_of = _bucket_of(lengths, buckets)
    return [
        batch
        for bucket in np.unique(bucket_of)
        for batch in _cut(np.flatnonzero(bucket_of == bucket), sizes[bucket], buckets[bucket])
    ]


def _bucket_of(lengths: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
    """The number of the smallest bucket that holds each text, int64 `[n]`."""
    lengths = np.asarray(lengths, np.int64)
    if lengths.max(initial=0) > buckets[-1]:
        raise ValueError(f"expected texts of up to {buckets[-1]} tokens, found one of {lengths.max()}")
    return np.searchsorted(np.asarray(buckets), lengths)


def _cut(rows: np.ndarray, batch_size: int, length: int) -> list[BatchRows]:
    return [BatchRows(rows[start : start + batch_size], length) for start in range(0, len(rows), batch_size)]


class TrainingBatches:
    """All batches of all epochs by their position: `self[step]` depends on the seed and the step alone."""

    def __init__(
        self,
        encoded: Encoded,
        labels: np.ndarray | None,
        *,
        buckets: tuple[int, ...],
        batch_size: int,
        epochs: int,
        seed: int,
    ) -> None:
        self._encoded = encoded
        self._labels = labels
        self._batch_size = batch_size
        self._epochs = epochs
        self.batches_per_epoch = -(-len(encoded) // batch_size)
        plan = functools.partial(training_plan, encoded.lengths, buckets=buckets, batch_size=batch_size, seed=seed)
        # Two, as the threads that prefetch are in two epochs at once around the end of one.
        self.plan = functools.lru_cache(maxsize=2)(lambda epoch: plan(epoch=epoch))
        """The batches of an epoch, in order."""

    def __repr__(self) -> str:
        return f"TrainingBatches({len(self._encoded)} texts, {self._epochs} epochs of {self.batches_per_epoch} batches)"

    def __len__(self) -> int:
        return self._epochs * self.batches_per_epoch

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(f"expected a step from 0 to {len(self) - 1}, found {step}")
        epoch, place = divmod(int(step), self.batches_per_epoch)
        chosen = self.plan(epoch)[place]
        return collate(
            self._encoded, chosen.rows, batch_size=self._batch_size, length=chosen.length, labels=self._labels
        )

    def stream(self, start: int) -> Iterator[Batch]:
        """The batches from step `start` on, made ahead in threads; closing the iterator ends them."""
        if start >= len(self):
            return
        import grain

        options = grain.ReadOptions(num_threads=PREFETCH_THREADS, prefetch_buffer_size=PREFETCHED_BATCHES)
        batches = iter(grain.MapDataset.source(self)[start:].to_iter_dataset(options))
        try:
            yield from batches
        finally:
            batches.close()
