"""Rows in chunks that are answered and written at once, and how to find the first chunk that is not done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from fastbert_jax.errors import UserError
from fastbert_jax.inference.predict_command.resumable import Done
from fastbert_jax.text.examples import Example, Unreadable

Record = Example | Unreadable

ROWS = 4096
"""Rows of a chunk, at most: enough to fill the batches of every length."""
CHARACTERS = 2**24
"""A chunk ends with the row that reaches so many, so that long texts do not fill the memory."""


def chunks_of(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The rows in order. Where a chunk ends depends on its rows alone, so it is the same whenever they are read."""
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        if isinstance(record, Example):
            characters += len(record.text) if isinstance(record.text, str) else sum(map(len, record.text))
        if len(chunk) >= ROWS or characters >= CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def checksum_after(before: str, chunk: Sequence[Record]) -> str:
    """The checksum of all rows up to the last of `chunk`, from the checksum of all before it."""
    digest = hashlib.blake2b(before.encode(), digest_size=16)
    for record in chunk:
        told = record.text if isinstance(record, Example) else (None, record.problem)
        digest.update(repr(told).encode())
    return digest.hexdigest()


def skip_done(chunks: Iterator[list[Record]], done: Done, *, name: str) -> None:
    """Read the chunks that are done.

    Raises:
      UserError: `name` has other rows there now.
    """
    rows, checksum = 0, ""
    while rows < done.rows:
        chunk = next(chunks, [])
        if not chunk:
            break
        rows += len(chunk)
        checksum = checksum_after(checksum, chunk)
    if (rows, checksum) != (done.rows, done.checksum):
        raise UserError(
            f"{name}: expected the {done.rows} rows that are answered already, found others; "
            "the input was changed: leave out --resume to start over"
        )
