"""Batches of a training phase by their position: of texts in memory or on disk, packed or not, and of streams."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.batches import Batch, BatchRows, EpochPlan, collate_rows, pack_rows, training_plan
from fastbert_jax.text.corpora import PreparedCorpus
from fastbert_jax.text.examples import Text
from fastbert_jax.text.tokenizer import Encoded

# Batches made ahead by `TrainingBatches.stream`, and the threads that make them.
PREFETCHED_BATCHES = 8
PREFETCH_THREADS = 2


class TrainingBatches:
    """All batches of all epochs by their position: `self[step]` depends on the seed and the step alone.

    A row holds one text, padded to the smallest length bucket that holds it or, for what is left over, a longer one.
    Packed, all rows have the longest length and hold several texts. Which texts share a row depends on their lengths
    alone; each epoch has the rows in another order.
    """

    def __init__(
        self,
        texts: Encoded | PreparedCorpus,
        labels: np.ndarray | None,
        *,
        buckets: tuple[int, ...],
        batch_size: int,
        epochs: int,
        seed: int,
        steps: int = 0,
        local_rows: np.ndarray | None = None,
        pack: bool = False,
        texts_per_row: int = 0,
    ) -> None:
        """Batches of `batch_size` rows.

        Args:
          labels: int32 `[n]`, one per text; None: unlabelled.
          steps: how many batches there are, through as many epochs as that takes; 0: as many as `epochs` have.
          local_rows: which rows of every batch this process makes, in this order, integers from 0 to
            `batch_size - 1`; None: all of them. What the batches hold altogether does not depend on it.
          pack: rows of several texts.
          texts_per_row: pack only: K of every batch; 0: chosen from the lengths (`choose_texts_per_row`).

        Raises:
          ValueError: pack only: a text longer than the last of `buckets`.
        """
        self.packed = pack_rows(texts.lengths, max_length=buckets[-1], texts_per_row=texts_per_row) if pack else None
        """The rows of several texts; None: a row is a text."""
        self._texts, self._labels, self._buckets, self._batch_size = texts, labels, buckets, batch_size
        self._texts_per_row = 1 if self.packed is None else self.packed.texts_per_row
        self._seed = seed
        self.total_texts = len(texts)
        """Texts of an epoch."""
        self.batches_per_epoch = -(-len(texts if self.packed is None else self.packed) // batch_size)
        """Batches that hold every row once, the last of them perhaps in part."""
        self._steps = steps or epochs * self.batches_per_epoch
        self._local_rows = np.arange(batch_size) if local_rows is None else np.asarray(local_rows, np.int64)
        # Two, as the threads that prefetch are in two epochs at once around the end of one.
        self.plan = functools.lru_cache(maxsize=2)(self._plan)
        """The batches of an epoch, in order."""

    def __len__(self) -> int:
        return self._steps

    @property
    def words(self) -> str:
        """How well the texts are packed, in a sentence; empty where they are not."""
        if self.packed is None:
            return ""
        real = self._texts.lengths.sum(dtype=np.int64) / max(len(self.packed) * self._buckets[-1], 1)
        return (
            f"{len(self._texts)} texts share {len(self.packed)} rows of {self._buckets[-1]} tokens, up to "
            f"{self.packed.texts_per_row} in each; {real:.1%} of the tokens are not padding."
        )

    def _plan(self, epoch: int) -> EpochPlan:
        lengths = self._texts.lengths
        if self.packed is not None:
            lengths = np.broadcast_to(self._buckets[-1], len(self.packed))
        return training_plan(lengths, buckets=self._buckets, batch_size=self._batch_size, seed=self._seed, epoch=epoch)

    def _texts_at(self, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The texts in some rows of a batch, one row after the other; how many each row has; the rows' length."""
        if not 0 <= step < len(self):
            raise IndexError(f"expected a step from 0 to {len(self) - 1}, found {step}")
        epoch, place = divmod(int(step), self.batches_per_epoch)
        chosen = self.plan(epoch)[place]
        present = rows < len(chosen.rows)  # the last batch may be partial
        texts, sizes = np.asarray(chosen.rows[rows[present]], np.int64), present.astype(np.int64)
        if self.packed is not None:
            texts, sizes[present] = self.packed.members(texts)
        return texts, sizes, chosen.length

    def texts_at(self, step: int, *, local: bool = True) -> np.ndarray:
        """The numbers of the texts in a batch, int64 `[B, K]`; -1 where there is none.

        Args:
          local: of this process's rows, as `self[step]` has them; else of all processes' rows.
        """
        texts, sizes, _ = self._texts_at(step, self._local_rows if local else np.arange(self._batch_size))
        numbers_BxK = np.full((len(sizes), self._texts_per_row), -1, np.int64)
        numbers_BxK[np.arange(self._texts_per_row) < sizes[:, None]] = texts
        return numbers_BxK

    def __getitem__(self, step: int) -> Batch:
        texts, sizes, length = self._texts_at(step, self._local_rows)
        labels = None if self._labels is None else self._labels[texts]
        return collate_rows(
            self._texts.take(texts), sizes, length=length, texts_per_row=self._texts_per_row, labels=labels
        )

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


class StreamedBatches:
    """Batches of a stream of texts, in windows: the texts of a window are put in order and batched with each other.

    The order of the texts within a window is a function of seed, epoch and window; the windows are the same in every
    epoch and come as the texts do. A window's last batch may be partial. Its batches are those of `TrainingBatches`.
    Lengths decide which texts share a batch, so every process tokenises all texts, and makes of each batch the rows
    that are its own.
    """

    def __init__(
        self,
        texts: Callable[[], Iterator[Text]],
        encode: Callable[[Sequence[Text]], Encoded],
        *,
        window: int,
        steps: int,
        seed: int,
        **shared: Any,
    ) -> None:
        """`steps` batches; `shared` holds the other settings of `TrainingBatches`, but for `epochs`.

        Packed, all windows have as many texts per row as the first one.

        Args:
          texts: reads the stream from its beginning, the same texts each time.
          window: texts that are held at a time; up to three windows are in memory.
        """
        self._texts, self._encode, self._window = texts, encode, window
        self._seed, self._shared = seed, shared
        self.batches_per_epoch = steps
        """All steps: the number of texts is unknown."""

    def __len__(self) -> int:
        return self.batches_per_epoch

    def plan(self, epoch: int) -> list[BatchRows]:
        """Nothing: what batches hold is only known when they are read."""
        return []

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead in threads; closing the iterator ends them.

        To find its place it reads up to two epochs again, without tokenising unless texts are packed.

        Raises:
          UserError: the texts cannot be read, or there are none.
        """
        left = len(self) - start
        if left <= 0:
            return
        with contextlib.closing(self._one_ahead(start)) as windows:
            for batches, first in windows:
                with contextlib.closing(batches.stream(first)) as made:
                    for batch in itertools.islice(made, left):
                        left -= 1
                        yield batch
                if not left:
                    return

    def _one_ahead(self, start: int) -> Generator[tuple[TrainingBatches, int]]:
        """What `_windows` gives, each made by a thread while the one before it is in use."""
        windows = self._windows(start)
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, windows)
            while True:
                window = following.result()
                following = pool.submit(next, windows)
                yield window

    def _windows(self, start: int) -> Iterator[tuple[TrainingBatches, int]]:
        """The batches of each window from that of step `start` on, without end, and with which of them to begin."""
        epoch = passed = 0
        while True:
            before, texts = passed, self._texts()
            for number in itertools.count():
                window = list(itertools.islice(texts, self._window))
                if not window:
                    break
                count = -(-len(window) // self._shared["batch_size"])
                if self._shared.get("pack") or passed + count > start:
                    batches = self._batches(window, epoch, number)
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

    def _batches(self, texts: list[Text], epoch: int, number: int) -> TrainingBatches:
        seed = np.random.SeedSequence([self._seed % 2**64, epoch, number]).generate_state(1, np.uint64)
        batches = TrainingBatches(self._encode(texts), None, epochs=1, seed=int(seed[0]), **self._shared)
        if batches.packed is not None:  # packed windows are counted from the very first one on, so this is that
            self._shared["texts_per_row"] = batches.packed.texts_per_row
        return batches


Batches = TrainingBatches | StreamedBatches
"""What the training loop takes."""
