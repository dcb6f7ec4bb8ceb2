"""Batches of texts that are read, tokenised and put in order on the way: no preparation, and memory stays flat."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from fastbert_jax.errors import UserError
from fastbert_jax.text.batches import Batch, BatchRows, EpochBatches, TrainingBatches
from fastbert_jax.text.examples import Text
from fastbert_jax.text.packed_batches import PackedBatches
from fastbert_jax.text.packing import choose_texts_per_row
from fastbert_jax.text.tokenizer import Encoded

Item = TypeVar("Item")


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
        batch_size: int,
        steps: int,
        seed: int,
        pack: bool = False,
        texts_per_row: int = 0,
        local_rows: np.ndarray | None = None,
    ) -> None:
        """`steps` batches of `batch_size` rows.

        Args:
          texts: reads the stream from its beginning, the same texts each time.
          window: texts that are held at a time; up to three windows are in memory.
          buckets: static lengths; packed rows have the last one.
          pack: rows of several texts.
          texts_per_row: pack only: K of every batch; 0: chosen from the lengths of the first window.
          local_rows: which rows of every batch this process makes; None: all.
        """
        self._texts, self._encode = texts, encode
        self._window, self._buckets, self._batch_size = window, buckets, batch_size
        self._steps, self._seed, self._pack, self._local_rows = steps, seed, pack, local_rows
        self._texts_per_row = texts_per_row

    def __repr__(self) -> str:
        return f"StreamedBatches({self._steps} steps, windows of {self._window} texts)"

    def __len__(self) -> int:
        return self._steps

    @property
    def batches_per_epoch(self) -> int:
        """All steps: nobody knows how many the texts make."""
        return self._steps

    def plan(self, epoch: int) -> list[BatchRows]:
        """Nothing: what batches hold is known when they are read."""
        return []

    def __getitem__(self, step: int) -> Batch:
        """One batch; all before it in its epoch are read and counted, so this is for looking at a few."""
        if not 0 <= step < self._steps:
            raise IndexError(f"expected a step from 0 to {self._steps - 1}, found {step}")
        with contextlib.closing(self.stream(step)) as stream:
            return next(stream)

    def stream(self, start: int) -> Generator[Batch]:
        """The batches from step `start` on, made ahead in threads; closing the iterator ends them.

        To find its place it reads up to two epochs again, without tokenising unless texts are packed.

        Raises:
          UserError: what the reading of the texts raises, or there are none.
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
                count = -(-len(texts) // self._batch_size)
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
        shared: dict[str, Any] = {"batch_size": self._batch_size, "epochs": 1, "seed": int(seed[0])}
        shared["local_rows"] = self._local_rows
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
