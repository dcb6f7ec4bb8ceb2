"""The form of a prepared corpus on disk: its records, its shards and the ledger that describes them.

    DIR/ledger.json                 settings, inputs, and every shard with its counts and checksums
    DIR/00000-00000.arrayrecord     input 0, part 0: one record a text
    DIR/00000-00000.lengths.npy     the tokens of each of its texts, uint16
    DIR/00000-00000.json            while the corpus is being made: the shard's part of the ledger

A record is an array of little-endian unsigned integers, of 16 bits where the vocabulary allows it and else of 32:
first how many tokens are of type 0 (all of a single text; of a pair, its first text with [CLS] and [SEP]), then the
token ids, [CLS] and [SEP] included. The other tokens are of type 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.atomic_files import write_json
from fastbert_jax.errors import UserError
from fastbert_jax.text.tokenizer import Encoded, offsets_of

FORMAT = 1
LEDGER = "ledger.json"
LENGTH_DTYPE = np.dtype("<u2")
# Records that are compressed together: smaller files by two thirds than one by one, and read as fast.
WRITER_OPTIONS = "group_size:64"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of texts, cut from one input."""

    name: str
    """Of its files, without their endings."""
    input: int
    """The number of its input."""
    first_row: int
    """Of the input's rows, from 0, the first that was looked at for this shard."""
    end_row: int
    """The first one that was not any more."""
    last: bool
    """Whether the input ends here."""
    texts: int
    tokens: int
    truncated_texts: int
    truncated_tokens: int
    bad_rows: int
    """Rows that were left out."""
    bad_row_examples: tuple[str, ...]
    """Where the first few of them are, and what is wrong with them."""
    bytes: int
    sha256: str
    lengths_sha256: str

    def file(self, directory: Path) -> Path:
        """Its texts."""
        return directory / f"{self.name}.arrayrecord"

    def lengths_file(self, directory: Path) -> Path:
        """Their lengths."""
        return directory / f"{self.name}.lengths.npy"

    def entry_file(self, directory: Path) -> Path:
        """Its part of the ledger while there is no whole one."""
        return directory / f"{self.name}.json"

    def is_there(self, directory: Path) -> bool:
        """Whether its files are, in their full sizes."""
        return _size(self.file(directory)) == self.bytes and self.lengths_file(directory).is_file()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a corpus is made of."""

    settings: dict[str, Any]
    """All that decides what the shards hold, but for the inputs."""
    inputs: dict[str, int]
    """The name of each input, and its bytes."""
    shards: tuple[Shard, ...]
    """In the order of the texts."""
    finished: bool
    """Whether these are all."""

    @property
    def token_dtype(self) -> np.dtype:
        """Of the numbers in a record."""
        return np.dtype(self.settings["token_dtype"])

    def write(self, directory: Path) -> None:
        """Write it, whole."""
        write_json(directory / LEDGER, {"format": FORMAT, **dataclasses.asdict(self)})


def read_ledger(directory: Path) -> Ledger | None:
    """The ledger of a corpus; none where there is no corpus.

    Raises:
      UserError: it is damaged, or in another form.
    """
    path = directory / LEDGER
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        shards = tuple(shard_of(shard) for shard in values.pop("shards"))
        return Ledger(shards=shards, **values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: expected the ledger of a corpus, found {error}; prepare it again elsewhere") from None


def shard_of(values: dict[str, Any]) -> Shard:
    """A shard's part of a ledger, from JSON values.

    Raises:
      ValueError: its name is none that a shard has, and might lead out of the corpus.
    """
    if not re.fullmatch(r"\d{5,}-\d{5,}", values["name"]):
        raise ValueError(f"a shard with the name {values['name']!r}")
    return Shard(**values | {"bad_row_examples": tuple(values["bad_row_examples"])})


def token_dtype(vocab_size: int) -> str:
    """The smallest form of number that holds every token id, and every length."""
    return "<u2" if vocab_size <= 2**16 else "<u4"


def to_records(texts: Encoded, dtype: np.dtype) -> Iterator[bytes]:
    """The record of each text."""
    offsets = offsets_of(texts.lengths + 1)
    heads = offsets[:-1]
    flat = np.zeros(offsets[-1], dtype)
    is_token = np.ones(len(flat), bool)
    is_token[heads] = False
    flat[is_token] = texts.token_ids
    flat[heads] = np.add.reduceat(texts.token_types == 0, texts.offsets[:-1], dtype=np.int64)
    for start, end in zip(heads.tolist(), offsets[1:].tolist(), strict=True):
        yield flat[start:end].tobytes()


def from_records(records: Sequence[bytes], lengths: np.ndarray, dtype: np.dtype) -> Encoded:
    """The texts of records that have these lengths.

    Raises:
      ValueError: a record has another length.
    """
    sizes = np.fromiter(map(len, records), np.int64, len(records))
    wanted = lengths.astype(np.int64) + 1
    if (sizes != wanted * dtype.itemsize).any():
        raise ValueError("a record of another length")
    flat = np.frombuffer(b"".join(records), dtype)
    heads = offsets_of(wanted)[:-1]
    is_token = np.ones(len(flat), bool)
    is_token[heads] = False
    offsets = offsets_of(lengths)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    types = position >= np.repeat(flat[heads], lengths)
    return Encoded(flat[is_token].astype(np.int32), types.astype(np.int32), offsets, 0, 0)


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
