"""Texts of every length, files of them, and the commands that prepare them."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.config import PrepareConfig
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.readers import open_table
from fastbert_jax.text.tables import Row
from fastbert_jax.text.tokenizer import Encoded, offsets_of

WORDS = ("oil", "prices", "rose", "net", "profit", "fell", "the", "bank", "of", "wheat")


def some_texts(count: int, *, seed: int = 0, words: int = 20) -> list[str]:
    """Texts of 1 to `words` words, the first one their number, so that no two are the same."""
    generator = random.Random(seed)
    return [" ".join([str(number), *generator.choices(WORDS, k=generator.randrange(words))]) for number in range(count)]


def write_texts(path: Path, count: int, *, seed: int = 0) -> Path:
    path.write_text("".join(f"{text}\n" for text in some_texts(count, seed=seed)), encoding="utf-8")
    return path


def preparation(tokenizer: Path, output: Path, *inputs: object, **settings: object) -> PrepareConfig:
    defaults: dict = {"max_length": 16, "shard_texts": 50}
    return PrepareConfig(
        input=tuple(map(str, inputs)), output=str(output), tokenizer=str(tokenizer), **defaults | settings
    )


def encode(lengths: np.ndarray) -> Encoded:
    """Texts of these lengths; every token's id is its text's number and its place."""
    ids = [np.zeros(0, int), *(1000 * (i + 1) + np.arange(length) for i, length in enumerate(lengths))]
    types = [np.zeros(0, bool), *(np.arange(length) >= length // 2 for length in lengths)]
    return Encoded(
        np.concatenate(ids).astype(np.int32), np.concatenate(types).astype(np.int32), offsets_of(lengths), 0, 0
    )


def texts_of(batch: Batch) -> list[list[tuple[int, int, int]]]:
    """The texts of a batch, sorted: id, type and position of each token; checks all that a batch promises of them."""
    found = []
    for row in range(len(batch.token_ids_BxS)):
        text_S = batch.text_BxS[row]
        numbers = sorted(set(text_S[text_S > 0].tolist()))
        assert batch.valid_BxK[row].tolist() == [k + 1 in numbers for k in range(batch.valid_BxK.shape[1])]
        for array_S in (batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS):
            assert not array_S[row][text_S == 0].any()
        for number in numbers:
            places = np.flatnonzero(text_S == number)
            assert batch.cls_BxK[row, number - 1] == places[0] and (np.diff(places) == 1).all()
            assert batch.position_BxS[row, places].tolist() == list(range(len(places)))
            arrays = (batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS)
            found.append(list(zip(*(array[row, places].tolist() for array in arrays), strict=True)))
    return sorted(found)


def joined(batches: list[Batch]) -> list[list[tuple[int, int, int]]]:
    """The texts of many batches, sorted."""
    return sorted(text for batch in batches for text in texts_of(batch))


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".lock"}


def rows_of(path: Path | str, *columns: str, **settings: Any) -> list[Any]:
    """The rows of a file, their values as tuples of those of `columns`; of all columns where none is named."""
    with open_table(path, **settings) as table:
        names = columns or table.columns
        return [
            dataclasses.replace(row, values=tuple(row.values.get(name) for name in names))
            if isinstance(row, Row)
            else row
            for row in table.rows(names)
        ]


def values_of(path: Path | str, *columns: str, **settings: Any) -> list[tuple]:
    """The values of the rows of a file."""
    return [row.values for row in rows_of(path, *columns, **settings)]


def open_only(path: Path | str, **settings: Any) -> Any:
    """The table of a file that was opened and closed again."""
    with open_table(path, **settings) as table:
        return table
