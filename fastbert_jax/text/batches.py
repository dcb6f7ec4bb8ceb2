"""Batches of static shape: which rows share one, in which order, and how they become arrays."""

from __future__ import annotations

import abc
import functools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from fastbert_jax.errors import needs_extra
from fastbert_jax.text.tokenizer import Encoded

# Batches made ahead by `EpochBatches.stream`, and the threads that make them.
PREFETCHED_BATCHES = 8
PREFETCH_THREADS = 2


class TokenisedTexts(Protocol):
    """n texts as batches take them: an `Encoded`, or a corpus on disk whose texts are read when they are taken."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text, integers `[n]`."""

    def take(self, rows: np.ndarray) -> Encoded:
        """The texts `rows`, in that order."""

    def __len__(self) -> int: ...


class Batches(Protocol):
    """All batches of a phase by their position, as the training loop takes them."""

    @property
    def batches_per_epoch(self) -> int: ...

    def __len__(self) -> int: ...

    def plan(self, epoch: int) -> Iterable[BatchRows]:
        """The batches of an epoch, in order; none where they are only known when they are read."""

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead; closing the iterator ends that."""


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
    texts: TokenisedTexts,
    rows: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    length: int,
    labels: np.ndarray | None = None,
) -> Batch:
    """One text a row (K = 1): texts `rows`, padded to `[batch_size, length]`.

    Rows beyond `len(rows)` are all padding and not valid. `labels` is int32 `[n]`, one per text of `texts`.

    Raises:
      ValueError: more rows than `batch_size`, or a text longer than `length`.
    """
    rows = np.asarray(rows, np.int64)
    return collate_rows(
        texts.take(rows),
        np.ones(len(rows), np.int64),
        batch_size=batch_size,
        length=length,
        texts_per_row=1,
        labels=None if labels is None else labels[rows],
    )


def collate_rows(
    texts: Encoded,
    sizes: np.ndarray,
    *,
    batch_size: int,
    length: int,
    texts_per_row: int,
    labels: np.ndarray | None = None,
) -> Batch:
    """Rows of up to K texts, padded to `[batch_size, length]`: row r holds the next `sizes[r]` of `texts`.

    Rows beyond `len(sizes)` are all padding and not valid. `labels` is int32 `[n]`, one per text of `texts`.

    Raises:
      ValueError: more rows than `batch_size`, or a row of more texts than `texts_per_row` or tokens than `length`.
    """
    row = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    start = texts.offsets[:-1] - texts.offsets[first][row]
    lengths = texts.lengths
    longest, most = (start + lengths).max(initial=0), sizes.max(initial=0)
    if len(sizes) > batch_size or most > texts_per_row or longest > length:
        raise ValueError(
            f"expected up to {batch_size} rows of {length} tokens and {texts_per_row} texts, "
            f"found {len(sizes)} of up to {longest} and {most}"
        )
    place = np.arange(len(texts)) - first[row]
    position = np.arange(len(texts.token_ids)) - np.repeat(texts.offsets[:-1], lengths)
    token_place = np.repeat(row * length + start, lengths) + position
    text_place = row * texts_per_row + place

    def filled(size: int, places: np.ndarray, values: np.ndarray | int) -> np.ndarray:
        array = np.zeros(batch_size * size, np.int32)
        array[places] = values
        return array.reshape(batch_size, size)

    return Batch(
        token_ids_BxS=filled(length, token_place, texts.token_ids),
        token_type_BxS=filled(length, token_place, texts.token_types),
        position_BxS=filled(length, token_place, position),
        text_BxS=filled(length, token_place, np.repeat(place + 1, lengths)),
        cls_BxK=filled(texts_per_row, text_place, start),
        label_BxK=filled(texts_per_row, text_place, 0 if labels is None else labels),
        valid_BxK=filled(texts_per_row, text_place, 1).astype(bool),
    )


@dataclass(frozen=True)
class BatchRows:
    """The texts of one batch (integers), or its packed rows, and the static length they are padded to."""

    rows: np.ndarray
    length: int


@dataclass(frozen=True)
class Plan:
    """The batches of one epoch in their order, in a few arrays however many they are."""

    rows: np.ndarray
    """Each row once; `batch_size` after `batch_size` of them are a batch, the last of which may be partial."""
    lengths: np.ndarray
    """The static length of each batch."""
    order: np.ndarray
    """The batches in the order they come in."""
    batch_size: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> BatchRows:
        batch = int(self.order[place])
        start = batch * self.batch_size
        return BatchRows(self.rows[start : start + self.batch_size], int(self.lengths[batch]))

    def __iter__(self) -> Iterator[BatchRows]:
        return (self[place] for place in range(len(self)))


def training_plan(lengths: np.ndarray, *, buckets: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> Plan:
    """The batches of one epoch, a pure function of its arguments: every text once, in shuffled order.

    Texts are grouped by the smallest bucket that holds them. What is left over of a bucket moves up to the next
    longer one in use, so one batch at most is partial and there are always ceil(n / batch_size) of them.
    """
    key = [seed % 2**64, epoch]
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    shuffled = _compact(generator.permutation(len(lengths)))
    bucket_of = _bucket_of(lengths, buckets)[shuffled]
    by_bucket = np.argsort(bucket_of, kind="stable")
    last_of_batch = np.minimum(np.arange(0, len(lengths), batch_size) + batch_size, len(lengths)) - 1
    return Plan(
        rows=shuffled[by_bucket],
        lengths=np.asarray(buckets)[bucket_of[by_bucket[last_of_batch]]],
        order=generator.permutation(len(last_of_batch)),
        batch_size=batch_size,
    )


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
    """The number of the smallest bucket that holds each text, small integers `[n]`."""
    lengths = np.asarray(lengths)
    if lengths.max(initial=0) > buckets[-1]:
        raise ValueError(f"expected texts of up to {buckets[-1]} tokens, found one of {lengths.max()}")
    bucket_of_length = np.searchsorted(np.asarray(buckets), np.arange(buckets[-1] + 1))
    return bucket_of_length.astype(np.uint8 if len(buckets) < 2**8 else np.uint16)[lengths]


def _cut(rows: np.ndarray, batch_size: int, length: int) -> list[BatchRows]:
    return [BatchRows(rows[start : start + batch_size], length) for start in range(0, len(rows), batch_size)]


def _compact(numbers: np.ndarray) -> np.ndarray:
    """Numbers below `len(numbers)` in half the memory, unless they are too large."""
    return numbers.astype(np.int32) if len(numbers) < 2**31 else numbers


class EpochBatches(abc.ABC):
    """All batches of all epochs by their position: `self[step]` depends on the seed and the step alone."""

    def __init__(
        self,
        texts: TokenisedTexts,
        *,
        rows: int,
        texts_per_row: int,
        batch_size: int,
        epochs: int,
        steps: int = 0,
        local_rows: np.ndarray | None = None,
    ) -> None:
        """Batches of `batch_size` out of `rows` rows an epoch, which hold `texts`.

        Args:
          texts_per_row: K of every batch.
          steps: how many batches there are, through as many epochs as that takes; 0: as many as `epochs` have.
          local_rows: which rows of every batch this process makes, in this order, integers from 0 to
            `batch_size - 1`; None: all of them. What the batches hold altogether does not depend on it.
        """
        self._texts, self._texts_per_row, self._batch_size = texts, texts_per_row, batch_size
        self._batches_per_epoch = -(-rows // batch_size)
        self._steps = steps or epochs * self._batches_per_epoch
        self._local_rows = np.arange(batch_size) if local_rows is None else np.asarray(local_rows, np.int64)
        # Two, as the threads that prefetch are in two epochs at once around the end of one.
        self._plans = functools.lru_cache(maxsize=2)(self._plan)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every row once, the last of them perhaps in part."""
        return self._batches_per_epoch

    def plan(self, epoch: int) -> Plan:
        """The batches of an epoch, in order."""
        return self._plans(epoch)

    @abc.abstractmethod
    def _plan(self, epoch: int) -> Plan:
        """The batches of an epoch, in order."""

    @abc.abstractmethod
    def _members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the texts in `rows`, row after row, and how many are in each."""

    @abc.abstractmethod
    def _batch(self, rows: np.ndarray, *, batch_size: int, length: int) -> Batch:
        """The rows, and after them padding up to `batch_size`."""

    def __len__(self) -> int:
        return self._steps

    @property
    def total_texts(self) -> int:
        """Texts of an epoch."""
        return len(self._texts)

    def texts_at(self, step: int, *, local: bool = True) -> np.ndarray:
        """The numbers of the texts in a batch, int64 `[B, K]`; -1 where there is none.

        Args:
          local: of this process's rows, as `self[step]` has them; else of all processes' rows.
        """
        chosen, rows = self._chosen(step), self._local_rows if local else np.arange(self._batch_size)
        present = rows < len(chosen.rows)
        members, sizes = self._members(chosen.rows[rows[present]])
        held_BxK = np.zeros((len(rows), self._texts_per_row), bool)
        held_BxK[present] = np.arange(self._texts_per_row) < sizes[:, None]
        numbers_BxK = np.full(held_BxK.shape, -1, np.int64)
        numbers_BxK[held_BxK] = members
        return numbers_BxK

    def _chosen(self, step: int) -> BatchRows:
        if not 0 <= step < len(self):
            raise IndexError(f"expected a step from 0 to {len(self) - 1}, found {step}")
        epoch, place = divmod(int(step), self.batches_per_epoch)
        return self.plan(epoch)[place]

    def __getitem__(self, step: int) -> Batch:
        chosen, local = self._chosen(step), self._local_rows
        present = local < len(chosen.rows)
        batch = self._batch(chosen.rows[local[present]], batch_size=len(local), length=chosen.length)
        if present.all():
            return batch
        # In a partial batch, the rows that are there were made first and padding last; each goes to its place.
        places = np.where(present, np.cumsum(present) - 1, len(local) - 1)
        return Batch(*(array[places] for array in batch))

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead in threads; closing the iterator ends them."""
        if start >= len(self):
            return
        with needs_extra("train", "Training"):
            import grain

        options = grain.ReadOptions(num_threads=PREFETCH_THREADS, prefetch_buffer_size=PREFETCHED_BATCHES)
        batches = iter(grain.MapDataset.source(self)[start:].to_iter_dataset(options))
        try:
            yield from batches
        finally:
            batches.close()


class TrainingBatches(EpochBatches):
    """One text a row, padded to the smallest length bucket that holds it or, for what is left over, a longer one."""

    def __init__(
        self,
        texts: TokenisedTexts,
        labels: np.ndarray | None,
        *,
        buckets: tuple[int, ...],
        batch_size: int,
        epochs: int,
        seed: int,
        steps: int = 0,
        local_rows: np.ndarray | None = None,
    ) -> None:
        """Batches of `batch_size` texts; `labels` is int32 `[n]`, and `EpochBatches` tells the rest."""
        self._labels, self._buckets, self._seed = labels, buckets, seed
        super().__init__(
            texts,
            rows=len(texts),
            texts_per_row=1,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            local_rows=local_rows,
        )

    def __repr__(self) -> str:
        return f"TrainingBatches({len(self._texts)} texts, {len(self)} steps, {self.batches_per_epoch} an epoch)"

    def _plan(self, epoch: int) -> Plan:
        return training_plan(
            self._texts.lengths, buckets=self._buckets, batch_size=self._batch_size, seed=self._seed, epoch=epoch
        )

    def _members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows, np.ones(len(rows), np.int64)

    def _batch(self, rows: np.ndarray, *, batch_size: int, length: int) -> Batch:
        return collate(self._texts, rows, batch_size=batch_size, length=length, labels=self._labels)
