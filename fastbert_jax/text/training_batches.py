"""Batches of a training phase by their position: of texts in memory or on disk, packed or not, and of streams."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.batches import (
    BLOCK_TEXTS,
    SAMPLED_BLOCKS,
    Batch,
    BatchRows,
    EpochPlan,
    Packed,
    block_order,
    choose_texts_per_row,
    collate_rows,
    count_rows,
    one_text_rows,
    pack_rows,
    training_plan,
)
from fastbert_jax.text.corpora import PreparedCorpus
from fastbert_jax.text.examples import Text
from fastbert_jax.text.tokenizer import Encoded

# Batches made ahead by `TrainingBatches.stream`, and the threads that make them.
PREFETCHED_BATCHES = 8
PREFETCH_THREADS = 2
WINDOW_TEXTS, WINDOW_BATCHES = 2**19, 16
"""Texts of a prepared corpus that are shuffled with each other, about; so many batches if these have more texts."""


class _InMemory:
    """Texts in memory, as a `PreparedCorpus` gives those of its shards."""

    def __init__(self, texts: Encoded) -> None:
        self._offsets, self.take = texts.offsets, texts.take
        self.blocks = np.append(np.arange(0, max(len(texts), 1), BLOCK_TEXTS), len(texts))
        self.total_tokens = int(texts.offsets[-1])

    def lengths_of(self, block: int) -> np.ndarray:
        first, end = self.blocks[block : block + 2]
        return np.diff(self._offsets[first : end + 1])

    def length_counts(self, block: int) -> np.ndarray:
        return np.bincount(self.lengths_of(block))


class TrainingBatches:
    """All batches of all epochs by their position: `self[step]` depends on the seed and the step alone.

    A row holds one text, padded to the smallest length bucket that holds it or, for what is left over, a longer one.
    Packed, all rows have the longest length and hold several texts. Which texts share a row depends on their lengths
    alone; each epoch has the rows in another order.

    The rows of a prepared corpus are put in order window by window, so that memory does not grow with the corpus: each
    epoch takes the blocks of the corpus in another order, cuts their rows into windows of whole batches, and shuffles
    each window. Where there are several windows, the rows of a batch are in the order of the files, so that
    a process whose rows follow each other reads its share of the shards.
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
        self._texts = texts if isinstance(texts, PreparedCorpus) else _InMemory(texts)
        self._labels, self._buckets, self._batch_size, self._seed = labels, buckets, batch_size, seed
        self.total_texts = len(texts)
        """Texts of an epoch."""
        blocks = range(len(self._texts.blocks) - 1)
        self.texts_per_row = 1
        """The most texts in a row."""
        rows = np.diff(self._texts.blocks)
        self._packs = pack
        if pack:
            sampled = np.linspace(0, len(blocks) - 1, min(SAMPLED_BLOCKS, len(blocks)), dtype=int).tolist()
            self.texts_per_row = texts_per_row or choose_texts_per_row(
                [self._texts.length_counts(block) for block in sampled], max_length=buckets[-1]
            )
            shape = {"max_length": buckets[-1], "texts_per_row": self.texts_per_row}
            rows = np.array([count_rows(self._texts.length_counts(block), **shape) for block in blocks])
        self._rows_of_block = rows
        self.rows = int(rows.sum())
        """Rows of an epoch."""
        self.batches_per_epoch = -(-self.rows // batch_size)
        """Batches that hold every row once, the last of them perhaps in part."""
        self._window = self.batches_per_epoch  # in batches
        if isinstance(texts, PreparedCorpus):
            self._window = max(WINDOW_BATCHES, WINDOW_TEXTS * self.batches_per_epoch // len(texts))
        self._steps = steps or epochs * self.batches_per_epoch
        self._local_rows = np.arange(batch_size) if local_rows is None else np.asarray(local_rows, np.int64)
        # Two, as the threads that prefetch are in two windows at once around the end of one.
        self._planned = functools.lru_cache(maxsize=2)(self._plan)
        self._planning = threading.Lock()

    def __len__(self) -> int:
        return self._steps

    @property
    def words(self) -> str:
        """How well the texts are packed, in a sentence; empty where they are not."""
        if not self._packs:
            return ""
        real = self._texts.total_tokens / max(self.rows * self._buckets[-1], 1)
        return (
            f"{self.total_texts} texts share {self.rows} rows of {self._buckets[-1]} tokens, up to "
            f"{self.texts_per_row} in each; {real:.1%} of the tokens are not padding."
        )

    def plan(self, epoch: int, window: int = 0) -> EpochPlan:
        """The batches of a window of an epoch, in order."""
        return self._packed_and_plan(epoch, window)[1]

    def _packed_and_plan(self, epoch: int, window: int) -> tuple[Packed, EpochPlan]:
        with self._planning:  # else two threads would make the same at once, in twice the memory
            return self._planned(epoch, window)

    def _plan(self, epoch: int, window: int) -> tuple[Packed, EpochPlan]:
        """The rows of a window, which have the numbers of their texts, and the batches of these rows."""
        dtype = np.int32 if self.total_texts < 2**31 else np.int64
        texts, ends, lengths_of_rows = [], [np.zeros(1, dtype)], []
        for block, first, last in self._pieces(epoch, window):
            lengths = self._texts.lengths_of(block)
            packed = one_text_rows(len(lengths))
            if self._packs:
                packed = pack_rows(lengths, max_length=self._buckets[-1], texts_per_row=self.texts_per_row)
                lengths = np.broadcast_to(self._buckets[-1], len(packed))
            start, end = packed.row_offsets[[first, last]]
            texts.append((packed.texts[start:end] + self._texts.blocks[block]).astype(dtype))
            ends.append((packed.row_offsets[first + 1 : last + 1] + (ends[-1][-1] - start)).astype(dtype))
            lengths_of_rows.append(lengths[first:last])
        plan = training_plan(
            np.concatenate(lengths_of_rows),
            buckets=self._buckets,
            batch_size=self._batch_size,
            seed=self._seed,
            epoch=epoch,
            window=window,
        )
        return Packed(np.concatenate(texts), np.concatenate(ends)), plan

    def _pieces(self, epoch: int, window: int) -> list[tuple[int, int, int]]:
        """The blocks that a window has rows of, rising, with the first of these rows and where they end."""
        order = block_order(len(self._rows_of_block), seed=self._seed, epoch=epoch)
        ends = np.cumsum(self._rows_of_block[order])
        starts = ends - self._rows_of_block[order]
        first = window * self._window * self._batch_size
        last = first + self._window * self._batch_size
        inside = np.flatnonzero((starts < last) & (ends > first))
        firsts, lasts = np.maximum(starts, first) - starts, np.minimum(ends, last) - starts
        return sorted(zip(order[inside].tolist(), firsts[inside].tolist(), lasts[inside].tolist(), strict=True))

    def _texts_at(self, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The texts in some rows of a batch, one row after the other; how many each row has; the rows' length."""
        if not 0 <= step < len(self):
            raise IndexError(f"expected a step from 0 to {len(self) - 1}, found {step}")
        epoch, in_epoch = divmod(int(step), self.batches_per_epoch)
        window, place = divmod(in_epoch, self._window)
        packed, plan = self._packed_and_plan(epoch, window)
        planned = plan[place]
        chosen = planned.rows if self._window >= self.batches_per_epoch else np.sort(planned.rows)
        present = rows < len(chosen)  # the last batch may be partial
        sizes = present.astype(np.int64)
        texts, sizes[present] = packed.members(chosen[rows[present]])
        return texts.astype(np.int64), sizes, planned.length

    def texts_at(self, step: int, *, local: bool = True) -> np.ndarray:
        """The numbers of the texts in a batch, int64 `[B, K]`; -1 where there is none.

        Args:
          local: of this process's rows, as `self[step]` has them; else of all processes' rows.
        """
        texts, sizes, _ = self._texts_at(step, self._local_rows if local else np.arange(self._batch_size))
        numbers_BxK = np.full((len(sizes), self.texts_per_row), -1, np.int64)
        numbers_BxK[np.arange(self.texts_per_row) < sizes[:, None]] = texts
        return numbers_BxK

    def __getitem__(self, step: int) -> Batch:
        texts, sizes, length = self._texts_at(step, self._local_rows)
        labels = None if self._labels is None else self._labels[texts]
        return collate_rows(
            self._texts.take(texts), sizes, length=length, texts_per_row=self.texts_per_row, labels=labels
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
        if self._shared.get("pack"):  # packed windows are counted from the very first one on, so this is that
            self._shared["texts_per_row"] = batches.texts_per_row
        return batches


Batches = TrainingBatches | StreamedBatches
"""What the training loop takes."""
