"""Batches of a training phase by their position: of texts in memory or on disk, packed or not, and of streams."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.batches import Batch, TokenisedTexts, collate_rows
from fastbert_jax.text.examples import Text
from fastbert_jax.text.plans import BatchRows, EpochPlan, Packed, choose_texts_per_row, pack, training_plan
from fastbert_jax.text.tokenizer import Encoded

Item = TypeVar("Item")

# Batches made ahead by `EpochBatches.stream`, and the threads that make them.
PREFETCHED_BATCHES = 8
PREFETCH_THREADS = 2


class Batches(Protocol):
    """All batches of a phase by their position, as the training loop takes them."""

    @property
    def batches_per_epoch(self) -> int: ...

    def __len__(self) -> int: ...

    def plan(self, epoch: int) -> Iterable[BatchRows]:
        """The batches of an epoch, in order; none where that is only known when they are read."""

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead; closing the iterator ends that."""


class EpochBatches:
    """All batches of all epochs by their position: `self[step]` depends on the seed and the step alone."""

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
        packed: Packed | None = None,
    ) -> None:
        """Batches of `batch_size` rows, padded to the smallest of `buckets` that holds them (see `training_plan`).

        Args:
          labels: int32 `[n]`, one per text; None: unlabelled.
          steps: how many batches there are, through as many epochs as that takes; 0: as many as `epochs` have.
          local_rows: which rows of every batch this process makes, in this order, integers from 0 to
            `batch_size - 1`; None: all of them. What the batches hold altogether does not depend on it.
          packed: the rows, of the last bucket's length; None: one text a row.
        """
        self._texts, self._labels, self._buckets, self._batch_size = texts, labels, buckets, batch_size
        self._packed, self._seed = packed, seed
        self._batches_per_epoch = -(-(len(texts) if packed is None else len(packed)) // batch_size)
        self._steps = steps or epochs * self._batches_per_epoch
        self._local_rows = np.arange(batch_size) if local_rows is None else np.asarray(local_rows, np.int64)
        # Two, as the threads that prefetch are in two epochs at once around the end of one.
        self._plans = functools.lru_cache(maxsize=2)(self._plan)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._texts)} texts, {len(self)} steps, {self.batches_per_epoch} an epoch)"

    def __len__(self) -> int:
        return self._steps

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every row once, the last of them perhaps in part."""
        return self._batches_per_epoch

    @property
    def total_texts(self) -> int:
        """Texts of an epoch."""
        return len(self._texts)

    @property
    def _texts_per_row(self) -> int:
        return 1 if self._packed is None else self._packed.texts_per_row

    def plan(self, epoch: int) -> EpochPlan:
        """The batches of an epoch, in order."""
        return self._plans(epoch)

    def _plan(self, epoch: int) -> EpochPlan:
        lengths = self._texts.lengths
        if self._packed is not None:
            lengths = np.broadcast_to(self._buckets[-1], len(self._packed))
        return training_plan(lengths, buckets=self._buckets, batch_size=self._batch_size, seed=self._seed, epoch=epoch)

    def _members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the texts in `rows`, row after row, and how many are in each."""
        return (rows, np.ones(len(rows), np.int64)) if self._packed is None else self._packed.members(rows)

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
        members, sizes = self._members(np.asarray(chosen.rows[local[present]], np.int64))
        batch = collate_rows(
            self._texts.take(members),
            sizes,
            batch_size=len(local),
            length=chosen.length,
            texts_per_row=self._texts_per_row,
            labels=None if self._labels is None else self._labels[members],
        )
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


class PackedBatches(EpochBatches):
    """Rows of `max_length` tokens with up to `texts_per_row` texts each, so that every batch has one shape.

    Which texts share a row depends on their lengths alone; each epoch has the rows in another order.
    """

    def __init__(
        self,
        texts: TokenisedTexts,
        labels: np.ndarray | None,
        *,
        max_length: int,
        texts_per_row: int = 0,
        **shared: Any,
    ) -> None:
        """Batches of `batch_size` rows; `shared` holds the other settings of `EpochBatches`.

        Args:
          texts_per_row: K of every batch; 0: chosen from the lengths (`plans.choose_texts_per_row`).

        Raises:
          ValueError: a text longer than `max_length`.
        """
        self.packed = pack(texts.lengths, max_length=max_length, texts_per_row=texts_per_row)
        super().__init__(texts, labels, buckets=(max_length,), packed=self.packed, **shared)

    @property
    def real_tokens(self) -> float:
        """Share of the rows' tokens that are not padding."""
        tokens = self._texts.lengths.sum(dtype=np.int64)
        return float(tokens / max(len(self.packed) * self._buckets[-1], 1))

    @property
    def words(self) -> str:
        """How well the texts are packed, in a sentence."""
        return (
            f"{len(self._texts)} texts share {len(self.packed)} rows of {self._buckets[-1]} tokens, up to "
            f"{self.packed.texts_per_row} in each; {self.real_tokens:.1%} of the tokens are not padding."
        )


class StreamedBatches:
    """Batches of a stream of texts, in windows: the texts of a window are put in order and batched with each other.

    The order of the texts within a window is a function of seed, epoch and window; the windows are the same in every
    epoch and come as the texts do. A window's last batch may be partial. Unpacked, texts are padded to length buckets
    as in `TrainingBatches`. Lengths decide which texts share a batch, so every process tokenises all texts, and makes
    of each batch the rows that are its own.
    """

    def __init__(
        self,
        texts: Callable[[], Iterator[Text]],
        encode: Callable[[Sequence[Text]], Encoded],
        *,
        window: int,
        buckets: tuple[int, ...],
        steps: int,
        seed: int,
        pack: bool = False,
        texts_per_row: int = 0,
        **shared: Any,
    ) -> None:
        """`steps` batches; `shared` holds the other settings of `EpochBatches`, `batch_size` and `local_rows`.

        Args:
          texts: reads the stream from its beginning, the same texts each time.
          window: texts that are held at a time; up to three windows are in memory.
          buckets: static lengths; packed rows have the last one.
          pack: rows of several texts.
          texts_per_row: pack only: K of every batch; 0: chosen from the lengths of the first window.
        """
        self._texts, self._encode, self._window, self._buckets = texts, encode, window, buckets
        self._steps, self._seed, self._pack, self._texts_per_row = steps, seed, pack, texts_per_row
        self._shared = shared

    def __repr__(self) -> str:
        return f"StreamedBatches({self._steps} steps, windows of {self._window} texts)"

    def __len__(self) -> int:
        return self._steps

    @property
    def batches_per_epoch(self) -> int:
        """All steps: the number of texts is unknown."""
        return self._steps

    def plan(self, epoch: int) -> list[BatchRows]:
        """Nothing: what batches hold is only known when they are read."""
        return []

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead in threads; closing the iterator ends them.

        To find its place it reads up to two epochs again, without tokenising unless texts are packed.

        Raises:
          UserError: the texts cannot be read, or there are none.
        """
        left = self._steps - start
        if left <= 0:
            return
        with contextlib.closing(_one_ahead(self._windows(start))) as windows:
            for batches, first in windows:
                with contextlib.closing(batches.stream(first)) as made:
                    for batch in itertools.islice(made, left):
                        left -= 1
                        yield batch
                if not left:
                    return

    def _windows(self, start: int) -> Iterator[tuple[EpochBatches, int]]:
        """The batches of each window from that of step `start` on, and with which of them to begin."""
        epoch = passed = 0
        while True:
            before = passed
            for number, texts in enumerate(_cut(self._texts(), self._window)):
                count = -(-len(texts) // self._shared["batch_size"])
                if self._pack or passed + count > start:
                    batches = self._batches(texts, epoch, number)
                    count = len(batches)
                    if passed + count > start:
                        yield batches, max(start - passed, 0)
                passed += count
            if passed == before:
                raise UserError("data.unlabelled: expected texts to distil on, found a stream without one")
            # Every epoch has as many batches as this one.
            skipped = max(start - passed, 0) // (passed - before)
            passed += skipped * (passed - before)
            epoch += 1 + skipped

    def _batches(self, texts: list[Text], epoch: int, number: int) -> EpochBatches:
        encoded = self._encode(texts)
        seed = np.random.SeedSequence([self._seed % 2**64, epoch, number]).generate_state(1, np.uint64)
        shared: dict[str, Any] = self._shared | {"epochs": 1, "seed": int(seed[0])}
        if not self._pack:
            return TrainingBatches(encoded, None, buckets=self._buckets, **shared)
        length = self._buckets[-1]
        if not self._texts_per_row:
            # Packed windows are counted from the very first one on, so this is that.
            self._texts_per_row = choose_texts_per_row(encoded.lengths, max_length=length)
        return PackedBatches(encoded, None, max_length=length, texts_per_row=self._texts_per_row, **shared)


def _cut(texts: Iterator[Text], size: int) -> Iterator[list[Text]]:
    while window := list(itertools.islice(texts, size)):
        yield window


def _one_ahead(items: Iterator[Item]) -> Generator[Item]:
    """The same, each made by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
