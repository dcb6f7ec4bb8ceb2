"""Texts laid out in batches of static shape, what that costs in padding and in tokens cut off, and all static sizes."""

from __future__ import annotations

import bisect
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from fastbert_jax.errors import UserError
from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded


@dataclass(frozen=True)
class DeviceSizes:
    """What a kind of device takes at a time."""

    batch_tokens: int
    """Tokens of a batch where the user names no number: enough to keep all cores at work."""
    step_tokens: int
    """Tokens of a full layer step of a cascade, at most."""
    steps_in_flight: int
    """Layer steps of a cascade whose results the host has not read when it starts the next."""
    compiles_fast: bool
    """Whether a program compiles in a fraction of a second, so that `bucketed` may have many."""


CPU = DeviceSizes(batch_tokens=2048, step_tokens=1024, steps_in_flight=1, compiles_fast=True)
"""Larger steps of a cascade gain nothing, and leave more over at the end."""
ACCELERATOR = DeviceSizes(batch_tokens=32768, step_tokens=32768, steps_in_flight=2, compiles_fast=False)
"""A GPU or a TPU, which small steps leave idle, and whose programs take seconds to compile. Not measured."""


def device_sizes() -> DeviceSizes:
    """The sizes for the platform that jax runs on."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


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
        ("batch_tokens", batch_tokens, 0, "1 or more, or 0 to go by the device"),
    ):
        if not isinstance(value, numbers.Integral) or value < least:
            raise UserError(f"{name}: expected {expected}, found {value!r}")
    tokens = batch_tokens or device_sizes().batch_tokens
    return {length: batch_size or max(1, tokens // length) for length in lengths}


def plan_batches(
    encoded: Encoded, *, lengths: Sequence[int], batch_size: int = 0, batch_tokens: int = 0
) -> BatchedTexts:
    """Lay texts out in batches of like lengths; a batch that is not full takes a smaller bucket of rows.

    Args:
      lengths: rising static lengths, the last as long as the longest text or longer.
      batch_size: texts per batch; 0: as many as `batch_tokens` holds, so that short texts share large batches.
      batch_tokens: tokens per batch, padding included; 0: as many as suit the device.

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
        rows = min(rows, max(1, device_sizes().step_tokens // length))
        self._rows[length] = max(rows, self._rows.get(length, 0))
        return self._rows[length]


def first_rows(batch: Batch, rows: int) -> Batch:
    """The first rows of a batch, with rows that hold no text where it has fewer."""
    missing = max(rows - len(batch.text_BxS), 0)
    return Batch(*(np.pad(leaf[:rows], [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)) for leaf in batch))


def batch_buckets(batch_size: int) -> tuple[int, ...]:
    """The static numbers of rows that batches of up to `batch_size` texts shrink to, rising, `batch_size` last.

    Each is a program to compile; their number grows with the logarithm of the batch size. On a CPU they are 1, 2, 3, 4,
    6, 8, 10, 12, 14, 16, 20, 24, 28, 32, ...: a step costs nearly in proportion to its rows, and above 8 a fifth of a
    bucket is padding at most (`benchmarks/engine_efficiency.py`). On a GPU or a TPU they are powers of two.
    """
    powers = [1 << shift for shift in range(batch_size.bit_length())]
    fine = {rows * quarters // 4 for rows in powers for quarters in (4, 5, 6, 7)} - {5, 7}
    buckets = sorted(fine) if device_sizes().compiles_fast else powers
    return (*(rows for rows in buckets if rows < batch_size), batch_size)


def smallest_bucket(buckets: tuple[int, ...], rows: int) -> int:
    """The smallest of the rising `buckets` that holds `rows`, which is at most the last of them."""
    return buckets[bisect.bisect_left(buckets, rows)]


def next_bucket(buckets: tuple[int, ...], rows: int, texts: int) -> int:
    """The bucket that the `texts` left in one of `rows` move to next; `rows` itself where no smaller one holds them.

    Each move from one bucket to another is a program to compile. So on a GPU or a TPU texts move to the next smaller
    bucket only, and from there on; the moves together copy less than twice what the first one does.
    """
    smallest = smallest_bucket(buckets, texts)
    if device_sizes().compiles_fast:
        return smallest
    return max(smallest, buckets[max(buckets.index(rows) - 1, 0)])


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
