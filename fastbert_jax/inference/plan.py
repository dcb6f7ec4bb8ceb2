"""Texts laid out in batches of static shape, what that costs in padding and in tokens cut off, and all static sizes."""

from __future__ import annotations

import bisect
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from fastbert_jax.config import BATCH_TOKENS
from fastbert_jax.errors import UserError
from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded

CPU_STEP_TOKENS = 1024
"""Tokens of a full layer step of a cascade on a CPU, where larger ones gain nothing and leave more over at the end."""

EIGHTHS = (1, 2, 3, 4, 6, 8)
"""Rows of the steps that a cascade compiles, in eighths of a full one: three quarters of a step hold texts, or more,
until an eighth is too much."""


@dataclass(frozen=True)
class BatchedTexts:
    """All batches of some texts, the shortest texts first."""

    batches: tuple[Batch, ...]
    members: tuple[np.ndarray, ...]
    """Of each batch, which text each of its first rows holds."""
    truncated_texts: int
    """Texts that were longer than the model's longest, and lost their end."""
    truncated_tokens: int

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return sum(map(len, self.members))

    @property
    def padded_lengths(self) -> np.ndarray:
        """The length that each text is padded to, int `[texts]`, in the texts' order."""
        lengths = np.zeros(self.texts, int)
        for texts, batch in zip(self.members, self.batches, strict=True):
            lengths[texts] = batch.text_BxS.shape[1]
        return lengths

    @property
    def padding_share(self) -> float:
        """The share of all places in the batches, rows without a text included, that hold no token."""
        places = sum(batch.text_BxS.size for batch in self.batches)
        tokens = sum(int(np.count_nonzero(batch.text_BxS)) for batch in self.batches)
        return 1 - tokens / places if places else 0.0


def batch_rows(lengths: Sequence[int], *, batch_size: int, batch_tokens: int) -> dict[int, int]:
    """How many texts of each length a full batch holds.

    Raises:
      UserError: a batch of less than one text.
    """
    for name, value, least, expected in (
        ("batch_size", batch_size, 0, "1 or more, or 0 to go by batch_tokens"),
        ("batch_tokens", batch_tokens, 1, "1 or more"),
    ):
        if not isinstance(value, numbers.Integral) or value < least:
            raise UserError(f"{name}: expected {expected}, found {value!r}")
    return {length: batch_size or max(1, batch_tokens // length) for length in lengths}


def plan_batches(
    encoded: Encoded, *, lengths: Sequence[int], batch_size: int = 0, batch_tokens: int = BATCH_TOKENS
) -> BatchedTexts:
    """Lay texts out in batches of like lengths; a batch that is not full takes a smaller bucket of rows.

    Args:
      lengths: rising static lengths, the last as long as the longest text or longer.
      batch_size: texts per batch; 0: as many as `batch_tokens` holds, so that short texts share large batches.
      batch_tokens: tokens per batch, padding included.

    Raises:
      UserError: a batch of less than one text.
    """
    sizes = batch_rows(lengths, batch_size=batch_size, batch_tokens=batch_tokens)
    parts = inference_plan(encoded.lengths, buckets=tuple(sizes), batch_sizes=tuple(sizes.values()))
    batches = []
    for part in parts:
        rows = smallest_bucket(batch_buckets(sizes[part.length]), len(part.rows))
        batches.append(collate(encoded, part.rows, batch_size=rows, length=part.length))
    members = tuple(part.rows for part in parts)
    return BatchedTexts(tuple(batches), members, encoded.truncated_texts, encoded.truncated_tokens)


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
        if jax.default_backend() == "cpu":
            rows = min(rows, max(1, CPU_STEP_TOKENS // length))
        self._rows[length] = max(rows, self._rows.get(length, 0))
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
