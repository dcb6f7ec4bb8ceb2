"""One input into the shards of a prepared corpus: what each worker of the prepare command does."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastbert_jax.atomic_files import atomic_file, write_json
from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.corpus_format import LENGTH_DTYPE, WRITER_OPTIONS, Shard, sha256_of, to_records
from fastbert_jax.text.examples import Example, Text, Unreadable
from fastbert_jax.text.sources import read_records
from fastbert_jax.text.tokenizer import Tokenizer

# Texts that are tokenised at once.
CHUNK = 1024
BAD_ROWS_TO_NAME = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputWork:
    """One input to prepare, or the rest of it."""

    directory: Path
    """Where the shards go."""
    input: int
    name: str
    data: DataConfig
    """How its rows are read."""
    max_length: int
    shard_texts: int
    token_dtype: str
    done: tuple[Shard, ...]
    """The shards that are there, from its beginning on."""


def write_input(work: InputWork, tokenizer: Tokenizer, advance: Callable[[int], None]) -> None:
    """Write the shards of an input that are not there yet; each is found by its entry once it is whole.

    Args:
      advance: called with the number of texts that are done since the last call; what it raises ends the work.

    Raises:
      UserError: the input cannot be read, holds a bad row under `stop` or no good one at all, or the shard cannot be
        written.
    """
    first_row = work.done[-1].end_row if work.done else 0
    part, row = len(work.done), first_row - 1
    shard = _OpenShard(work, tokenizer, advance, part=part, first_row=first_row)
    try:
        # The rows that are done are read again, which is all that can be done with compressed lines.
        records = itertools.islice(read_records(work.name, work.data), first_row, None)
        for row, record in enumerate(records, start=first_row):
            if isinstance(record, Unreadable):
                shard.leave_out(record)
                continue
            if shard.texts == work.shard_texts:
                shard.finish(end_row=row, last=False)
                part += 1
                shard = _OpenShard(work, tokenizer, advance, part=part, first_row=row)
            shard.add(record)
        shard.finish(end_row=row + 1, last=True)
    finally:
        shard.remove_unfinished()


class _OpenShard:
    """A shard that is being written, under another name."""

    def __init__(
        self, work: InputWork, tokenizer: Tokenizer, advance: Callable[[int], None], *, part: int, first_row: int
    ) -> None:
        with needs_extra("train", "Preparing a corpus"):
            from array_record.python.array_record_module import ArrayRecordWriter

        self.texts = 0
        self._work, self._tokenizer, self._advance = work, tokenizer, advance
        self._name, self._first_row = f"{work.input:05d}-{part:05d}", first_row
        self._unfinished = work.directory / f".{self._name}.{os.getpid()}.unfinished"
        self._writer = ArrayRecordWriter(str(self._unfinished), WRITER_OPTIONS)
        self._waiting: list[Text] = []
        self._lengths = [np.zeros(0, LENGTH_DTYPE)]
        self._cut_texts = self._cut_tokens = 0
        self._bad: list[str] = []
        self._bad_rows = 0

    def add(self, example: Example) -> None:
        """Take a text."""
        self._waiting.append(example.text)
        self.texts += 1
        if len(self._waiting) == CHUNK:
            self._write()

    def leave_out(self, row: Unreadable) -> None:
        """Count a bad row, or stop there."""
        if self._work.data.on_bad_row is BadRow.STOP:
            raise UserError(f"{row.where}: {row.problem}; fix the row or skip such rows (--on-bad-row skip)")
        self._bad_rows += 1
        if len(self._bad) < BAD_ROWS_TO_NAME:
            self._bad.append(f"{row.where}: {row.problem}")

    def finish(self, *, end_row: int, last: bool) -> None:
        """Write what is left, give the files their names, and then the shard its entry."""
        if not self.texts:
            raise UserError(f"{self._bad[0]}; none of the {self._bad_rows} rows of {self._work.name} can be read")
        self._write()
        directory = self._work.directory
        lengths = np.concatenate(self._lengths)
        try:
            self._writer.close()
            self._require_whole()
            shard = Shard(
                name=self._name,
                input=self._work.input,
                first_row=self._first_row,
                end_row=end_row,
                last=last,
                texts=self.texts,
                tokens=int(lengths.sum(dtype=np.int64)),
                truncated_texts=self._cut_texts,
                truncated_tokens=self._cut_tokens,
                bad_rows=self._bad_rows,
                bad_row_examples=tuple(self._bad),
                bytes=self._unfinished.stat().st_size,
                sha256=sha256_of(self._unfinished),
                lengths_sha256="",
            )
            with atomic_file(shard.lengths_file(directory), "wb") as stream:
                np.save(stream, lengths)
            with open(self._unfinished, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(self._unfinished, shard.file(directory))
            shard = dataclasses.replace(shard, lengths_sha256=sha256_of(shard.lengths_file(directory)))
            write_json(shard.entry_file(directory), dataclasses.asdict(shard))
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from None

    def remove_unfinished(self) -> None:
        """Leave nothing of a shard that did not become whole."""
        with contextlib.suppress(RuntimeError):  # what cannot be written was told already
            self._writer.close()
        self._unfinished.unlink(missing_ok=True)

    def _write(self) -> None:
        encoded = self._tokenizer.encode(self._waiting, max_length=self._work.max_length)
        try:
            for record in to_records(encoded, np.dtype(self._work.token_dtype)):
                self._writer.write(record)
        except RuntimeError as error:
            raise self._unwritable(error) from None
        self._lengths.append(encoded.lengths.astype(LENGTH_DTYPE))
        self._cut_texts += encoded.truncated_texts
        self._cut_tokens += encoded.truncated_tokens
        self._waiting.clear()
        self._advance(len(encoded))

    def _require_whole(self) -> None:
        """The writer says nothing of a full disk; the reader does."""
        from array_record.python.array_record_module import ArrayRecordReader

        reader = ArrayRecordReader(str(self._unfinished))
        found = reader.num_records() if reader.ok() else 0
        reader.close()
        if found != self.texts:
            raise OSError(f"{found} of {self.texts} records; is the disk full?")

    def _unwritable(self, error: Exception) -> UserError:
        found = getattr(error, "strerror", None) or error
        return UserError(f"{self._work.directory}: expected a place to write shard {self._name} to, found: {found}")
