"""Batches of static shape: how texts of tokens become arrays that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastbert_jax.text.tokenizer import Encoded


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
