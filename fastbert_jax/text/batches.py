"""Batches of static shape: how texts of tokens become arrays that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fastbert_jax.text.tokenizer import Encoded


class TokenisedTexts(Protocol):
    """n texts as batches take them: an `Encoded`, or a corpus on disk whose texts are read when they are taken."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text, integers `[n]`."""

    def take(self, rows: np.ndarray) -> Encoded:
        """The texts `rows`, in that order."""

    def __len__(self) -> int: ...


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
