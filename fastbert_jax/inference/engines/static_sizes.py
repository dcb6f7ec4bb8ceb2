"""The static sizes of batches and steps: how many rows a program is compiled for, and batches cut or padded to them."""

from __future__ import annotations

import bisect

import jax
import numpy as np

from fastbert_jax.text.batches import Batch

CPU_STEP_TOKENS = 1024
"""Tokens of a full layer step of a cascade on a CPU, where larger ones gain nothing and leave more over at the end."""

EIGHTHS = (1, 2, 3, 4, 6, 8)
"""Rows of the steps that a cascade compiles, in eighths of a full one: three quarters of a step hold texts, or more,
until an eighth is too much."""


def step_rows(batch_rows: int, length: int) -> int:
    """Rows of a full layer step of a cascade that is fed with batches of `batch_rows` texts of `length` tokens."""
    if jax.default_backend() != "cpu":
        return batch_rows
    return min(batch_rows, max(1, CPU_STEP_TOKENS // length))


def step_sizes(rows: int) -> tuple[int, ...]:
    """The rows of the steps that a cascade compiles where a full one has `rows`, rising."""
    return tuple(sorted({1, *(-(-rows * eighths // 8) for eighths in EIGHTHS)}))


class RowsByLength:
    """The rows of a full step for each length, as the largest batch so far asks: smaller ones then compile nothing."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def of(self, batch: Batch) -> int:
        """The rows of a full step for a batch and those after it."""
        rows, length = batch.text_BxS.shape
        self._rows[length] = max(step_rows(rows, length), self._rows.get(length, 0))
        return self._rows[length]


def first_rows(batch: Batch, rows: int) -> Batch:
    """The first rows of a batch, with rows that hold no text where it has fewer."""
    missing = max(rows - len(batch.text_BxS), 0)
    return Batch(*(np.pad(leaf[:rows], [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)) for leaf in batch))


def batch_buckets(batch_size: int) -> tuple[int, ...]:
    """The static numbers of rows that batches of up to `batch_size` texts shrink to, rising, `batch_size` last.

    1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, ...: above 8, a fifth of a bucket is padding at most, and their
    number, each a program to compile, grows with the logarithm of the batch size. On a CPU a step costs nearly in
    proportion to its rows, so that padding is paid in full; `benchmarks/engine_efficiency.py` measures it.
    """
    fine = [quarter << shift for shift in range(1, batch_size.bit_length()) for quarter in (4, 5, 6, 7)]
    return (*(rows for rows in [1, 2, 3, 4, 6, *fine] if rows < batch_size), batch_size)


def smallest_bucket(buckets: tuple[int, ...], rows: int) -> int:
    """The smallest of the rising `buckets` that holds `rows`, which is at most the last of them."""
    return buckets[bisect.bisect_left(buckets, rows)]


def texts_of(batch: Batch) -> int:
    """How many texts a batch holds."""
    return int(np.count_nonzero(batch.valid_BxK))


def full_batch(rows: int, length: int) -> Batch:
    """A batch of `rows` texts of one token each, to compile with."""
    ids = np.zeros((rows, length), np.int32)
    first = np.zeros((rows, 1), np.int32)
    text = ids.copy()
    text[:, 0] = 1
    return Batch(ids, ids, ids, text, first, first, np.ones((rows, 1), bool))
