"""Batches of static shape: which texts share a row and a batch, in which order, and the arrays that the model takes.

Plans are pure functions of lengths, seed and epoch.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastbert_jax.text.tokenizer import Encoded, joined_ranges, offsets_of

BLOCK_TEXTS = 65_536
"""Consecutive texts that are packed with each other; the blocks of a prepared corpus are whole shards, so larger."""
# How the texts per row are chosen: the blocks looked at, and the share of rows that a smaller number may cost.
SAMPLED_BLOCKS = 4
ROWS_TO_SPARE = 0.01


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
    """int32; the place of each text's [CLS] in its row."""
    label_BxK: np.ndarray
    """int32; 0 where unknown."""
    valid_BxK: np.ndarray
    """bool; False where there is no text."""


def collate(
    texts: Encoded,
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
    if len(rows) > batch_size:
        raise ValueError(f"expected up to {batch_size} rows, found {len(rows)}")
    sizes = (np.arange(batch_size) < len(rows)).astype(np.int64)
    labels = None if labels is None else labels[rows]
    return collate_rows(texts.take(rows), sizes, length=length, texts_per_row=1, labels=labels)


def collate_rows(
    texts: Encoded, sizes: np.ndarray, *, length: int, texts_per_row: int, labels: np.ndarray | None = None
) -> Batch:
    """Rows of up to K texts, padded to `[len(sizes), length]`: row r holds the next `sizes[r]` of `texts`.

    A row of no texts is all padding and not valid. `labels` is int32 `[n]`, one per text of `texts`.

    Raises:
      ValueError: a row of more texts than `texts_per_row` or more tokens than `length`.
    """
    row = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    start = texts.offsets[:-1] - texts.offsets[first][row]
    lengths = texts.lengths
    longest, most = (start + lengths).max(initial=0), sizes.max(initial=0)
    if most > texts_per_row or longest > length:
        raise ValueError(
            f"expected rows of up to {length} tokens and {texts_per_row} texts, found up to {longest} and {most}"
        )
    place = np.arange(len(texts)) - first[row]
    position = np.arange(len(texts.token_ids)) - np.repeat(texts.offsets[:-1], lengths)
    token_place = np.repeat(row * length + start, lengths) + position
    text_place = row * texts_per_row + place

    def filled(size: int, places: np.ndarray, values: np.ndarray | int) -> np.ndarray:
        array = np.zeros(len(sizes) * size, np.int32)
        array[places] = values
        return array.reshape(len(sizes), size)

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
class EpochPlan:
    """The batches of an epoch, or of a window of one, in their order, in a few arrays however many they are."""

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


def training_plan(
    lengths: np.ndarray, *, buckets: tuple[int, ...], batch_size: int, seed: int, epoch: int, window: int = 0
) -> EpochPlan:
    """The batches of one window of an epoch, a pure function of its arguments: every text once, in shuffled order.

    Texts are grouped by the smallest bucket that holds them. What is left over of a bucket moves up to the next
    longer one in use, so one batch at most is partial and there are always ceil(n / batch_size) of them.
    """
    generator = _generator(seed, epoch, [0, 0, 0, window])
    shuffled = generator.permutation(len(lengths))
    if len(lengths) < 2**31:
        shuffled = shuffled.astype(np.int32)  # half the memory
    bucket_of = _bucket_of(lengths, buckets)[shuffled]
    by_bucket = np.argsort(bucket_of, kind="stable")
    last_of_batch = np.minimum(np.arange(0, len(lengths), batch_size) + batch_size, len(lengths)) - 1
    return EpochPlan(
        rows=shuffled[by_bucket],
        lengths=np.asarray(buckets)[bucket_of[by_bucket[last_of_batch]]],
        order=generator.permutation(len(last_of_batch)),
        batch_size=batch_size,
    )


def block_order(blocks: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes the blocks of a corpus, int64 `[blocks]`."""
    return _generator(seed, epoch, [0, 0, 1, 0]).permutation(blocks)


def _generator(seed: int, epoch: int, counter: list[int]) -> np.random.Generator:
    key = np.array([seed % 2**64, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array(counter, np.uint64)))


def inference_plan(
    lengths: np.ndarray, *, buckets: tuple[int, ...], batch_sizes: int | Sequence[int]
) -> list[BatchRows]:
    """Every text once, grouped by the smallest bucket that holds it, in input order; each bucket may end partial.

    Args:
      batch_sizes: texts per batch, one number or one per bucket.
    """
    sizes = np.broadcast_to(np.asarray(batch_sizes), len(buckets)).tolist()
    bucket_of = _bucket_of(lengths, buckets)
    batches = []
    for bucket in np.unique(bucket_of).tolist():
        rows, size = np.flatnonzero(bucket_of == bucket), sizes[bucket]
        batches += [BatchRows(rows[start : start + size], buckets[bucket]) for start in range(0, len(rows), size)]
    return batches


def _bucket_of(lengths: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
    """The number of the smallest bucket that holds each text, small integers `[n]`."""
    lengths = np.asarray(lengths)
    if lengths.max(initial=0) > buckets[-1]:
        raise ValueError(f"expected texts of up to {buckets[-1]} tokens, found one of {lengths.max()}")
    bucket_of_length = np.searchsorted(np.asarray(buckets), np.arange(buckets[-1] + 1))
    return np.asarray(bucket_of_length.astype(np.uint8 if len(buckets) < 2**8 else np.uint16)[lengths])


@dataclass(frozen=True)
class Packed:
    """R rows of one text or more."""

    texts: np.ndarray
    """The numbers of the texts, row after row; each once."""
    row_offsets: np.ndarray
    """Integers `[R + 1]`; row r holds `texts[row_offsets[r] : row_offsets[r + 1]]`."""

    def __len__(self) -> int:
        return len(self.row_offsets) - 1

    def members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts of `rows`, row after row, and how many are in each."""
        starts = self.row_offsets[rows]
        sizes = self.row_offsets[rows + 1] - starts
        return self.texts[joined_ranges(starts, sizes)], sizes


def one_text_rows(texts: int) -> Packed:
    """Rows of one text each."""
    return Packed(np.arange(texts), np.arange(texts + 1))


def pack_rows(lengths: np.ndarray, *, max_length: int, texts_per_row: int) -> Packed:
    """Put the texts of a block into rows of `max_length` tokens: best fit, longest first.

    Best-fit decreasing over the histogram of the lengths: what is laid out is a row's pattern of lengths, as many times
    as there are texts for it, so no text is looked at by itself. There are `count_rows` of them.

    Args:
      lengths: tokens of every text, integers `[n]`.
      texts_per_row: the most texts in a row.

    Raises:
      ValueError: a text of no tokens, or of more than `max_length`.
    """
    by_length = np.argsort(lengths, kind="stable")
    counts = np.bincount(lengths)
    unused = offsets_of(counts)  # where the texts of each length that are not laid out yet begin
    texts, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for pattern, times in _patterns(counts, max_length, texts_per_row):
        rows = np.empty((times, len(pattern)), np.int64)
        for column, length in enumerate(pattern):
            rows[:, column] = by_length[unused[length] : unused[length] + times]
            unused[length] += times
        texts.append(rows.reshape(-1))
        sizes.append(np.full(times, len(pattern)))
    return Packed(np.concatenate(texts), offsets_of(np.concatenate(sizes)))


def count_rows(counts: np.ndarray, *, max_length: int, texts_per_row: int) -> int:
    """How many rows `pack_rows` makes of so many texts of 0 tokens, 1 token and so on, integers `[lengths]`.

    Raises:
      ValueError: a text of no tokens, or of more than `max_length`.
    """
    return sum(times for _, times in _patterns(counts, max_length, texts_per_row))


def choose_texts_per_row(blocks: Sequence[np.ndarray], *, max_length: int) -> int:
    """The smallest power of two that costs no more than 1 % of rows over rows without a bound.

    Args:
      blocks: of each block, how many texts have 0 tokens, 1 token and so on.
    """

    def rows(most: int) -> int:
        return sum(count_rows(counts, max_length=max_length, texts_per_row=most) for counts in blocks)

    enough = rows(max_length) * (1 + ROWS_TO_SPARE)
    most = 1
    while rows(most) > enough:
        most *= 2
    return most


def _patterns(counts_by_length: np.ndarray, max_length: int, most: int) -> Iterator[tuple[list[int], int]]:
    """The lengths that share a row, and how many rows are made so, until no text is left."""
    counts: list[int] = counts_by_length.tolist()
    lengths = [length for length, count in enumerate(counts) if count]
    if lengths and not 1 <= lengths[0] <= lengths[-1] <= max_length:
        raise ValueError(f"expected texts of 1 to {max_length} tokens, found {lengths[0]} to {lengths[-1]}")
    while lengths:
        pattern: Counter[int] = Counter()
        room = max_length
        for _ in range(most):
            index = bisect.bisect_right(lengths, room) - 1
            while index >= 0 and pattern[lengths[index]] == counts[lengths[index]]:
                index -= 1
            if index < 0:
                break
            pattern[lengths[index]] += 1
            room -= lengths[index]
        times = min(counts[length] // number for length, number in pattern.items())
        yield list(pattern.elements()), times
        for length, number in pattern.items():
            counts[length] -= times * number
        lengths = [length for length in lengths if counts[length]]
