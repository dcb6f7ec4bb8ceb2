"""Reading a prepared corpus: any of its texts at any time, from shards that are checked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.corpus_format import LENGTH_DTYPE, Ledger, Shard, from_records, read_ledger, sha256_of
from fastbert_jax.text.tokenizer import Encoded, Tokenizer

OPEN_SHARDS = 256
"""Files that are kept open at once."""
MAKE_AGAIN = "delete it, and the command that prepared the corpus makes it again"


class PreparedCorpus:
    """The texts of a directory that `python -m fastbert_jax.text.prepare` made; in memory are their lengths alone."""

    def __init__(self, directory: str | Path) -> None:
        """Open a corpus: check that all shards are there in their full sizes, and the checksums of their lengths.

        Raises:
          UserError: no corpus there, one that is not finished, or a file that is gone, cut short or damaged.
        """
        self.directory = Path(directory).expanduser()
        self.ledger = finished_ledger(self.directory)
        self.lengths: np.ndarray = np.concatenate([self._lengths_of(shard) for shard in self.ledger.shards])
        """Tokens of every text, uint16 `[n]`."""
        self._ends = np.cumsum([shard.texts for shard in self.ledger.shards])
        self._reader = functools.lru_cache(maxsize=OPEN_SHARDS)(self._open)

    def __repr__(self) -> str:
        return f"PreparedCorpus({str(self.directory)!r}: {len(self)} texts in {len(self.ledger.shards)} shards)"

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def max_length(self) -> int:
        """Tokens that the longest text may have."""
        return self.ledger.settings["max_length"]

    @property
    def truncated_texts(self) -> int:
        """Texts that were cut."""
        return sum(shard.truncated_texts for shard in self.ledger.shards)

    @property
    def truncated_tokens(self) -> int:
        """Tokens that were cut off, all in all."""
        return sum(shard.truncated_tokens for shard in self.ledger.shards)

    @property
    def fingerprint(self) -> str:
        """Words that differ when the texts, their order or their tokens do."""
        digest = hashlib.sha256(self.ledger.settings["tokenizer"].encode("utf-8"))
        for shard in self.ledger.shards:
            digest.update(f"{shard.sha256} {shard.lengths_sha256}\n".encode())
        return f"{len(self)} texts, sha256 {digest.hexdigest()}"

    def check(self, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Check that a run with this tokenizer and length can use the texts.

        Raises:
          UserError: the corpus was made with another tokenizer, or holds longer texts.
        """
        made_with = self.ledger.settings["tokenizer"]
        if made_with != tokenizer.fingerprint:
            raise UserError(
                f"{self.directory}: expected a corpus made with this run's tokenizer ({tokenizer.fingerprint[:12]}), "
                f"found one made with another ({made_with[:12]}); prepare it again with --tokenizer as "
                "model.pretrained is (a model from random weights learns its own vocabulary: give it stream:FILES)"
            )
        if self.max_length > max_length:
            raise UserError(
                f"{self.directory}: expected texts of up to data.max_length = {max_length} tokens, found a corpus of "
                f"up to {self.max_length}; raise data.max_length, or prepare it again with --max-length {max_length}"
            )

    def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        """The texts `rows`, in that order; what was cut from them is not told again.

        Raises:
          UserError: a shard turns out damaged or gone.
        """
        rows = np.asarray(rows, np.int64)
        shard_of = np.searchsorted(self._ends, rows, side="right")
        records: list[bytes] = [b""] * len(rows)
        for number in np.unique(shard_of).tolist():
            shard, places = self.ledger.shards[number], np.flatnonzero(shard_of == number)
            wanted = rows[places] - (self._ends[number] - shard.texts)
            found = _read(self._reader(number), wanted.tolist(), shard.file(self.directory))
            for place, record in zip(places.tolist(), found, strict=True):
                records[place] = record
        try:
            return from_records(records, self.lengths[rows], self.ledger.token_dtype)
        except ValueError:
            names = [str(self.ledger.shards[number].file(self.directory)) for number in np.unique(shard_of)]
            raise UserError(
                f"expected texts of the lengths that stand beside their shards, found others in {' or '.join(names)}; "
                "python -m fastbert_jax.text.prepare --verify tells which file was changed"
            ) from None

    def _open(self, number: int) -> Any:
        with needs_extra("train", f"prepared:{self.directory}"):
            from array_record.python.array_record_module import ArrayRecordReader

        shard = self.ledger.shards[number]
        path = shard.file(self.directory)
        reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0,max_parallelism:0")
        # A file that is cut short or gone opens without an error, and holds no records.
        count = reader.num_records() if reader.ok() else 0
        if count != shard.texts:
            raise UserError(f"{path}: expected {shard.texts} texts, found {count}; {MAKE_AGAIN}")
        return reader

    def _lengths_of(self, shard: Shard) -> np.ndarray:
        path = shard.lengths_file(self.directory)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: expected the lengths of a shard, found {error.strerror}; {MAKE_AGAIN}") from None
        lengths = np.zeros(0, LENGTH_DTYPE)
        if hashlib.sha256(content).hexdigest() == shard.lengths_sha256:
            with contextlib.suppress(ValueError):  # no numbers, or a pickle, which is not run
                lengths = np.load(io.BytesIO(content), allow_pickle=False)
        if len(lengths) != shard.texts:
            raise UserError(
                f"{path}: expected the lengths of the {shard.texts} texts beside it, found a file that was changed; "
                f"{MAKE_AGAIN}"
            )
        return lengths


def _read(reader: Any, rows: list[int], path: Path) -> list[bytes]:
    try:
        return reader.read(rows)
    except RuntimeError as error:
        found = str(error).split(";")[0]
        raise UserError(f"{path}: expected a whole shard, found a damaged one ({found}); {MAKE_AGAIN}") from None


def finished_ledger(directory: Path) -> Ledger:
    """The ledger of a finished corpus whose shards are all there, in their full sizes.

    Raises:
      UserError: it is none, or a shard is gone, empty or cut short.
    """
    ledger = read_ledger(directory)
    if ledger is None:
        raise UserError(
            f"{directory}: expected a prepared corpus, found no ledger.json; make one: "
            f"python -m fastbert_jax.text.prepare --input FILES --output {directory}"
        )
    if not ledger.finished:
        raise UserError(
            f"{directory}: expected a finished corpus, found one that is being prepared; the same command goes on"
        )
    for shard in ledger.shards:
        path = shard.file(directory)
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            raise UserError(f"{path}: expected a shard, found nothing; the command that prepared it makes it again")
        if found != shard.bytes:
            raise UserError(f"{path}: expected {shard.bytes} bytes, found {found}; {MAKE_AGAIN}")
    return ledger


def verify(directory: Path, advance: Callable[[int], None] = lambda count: None) -> Ledger:
    """Read every byte of a corpus and compare checksums.

    Args:
      advance: called with the texts of each shard that is as it should be.

    Raises:
      UserError: a file is not what it was; all such files are listed.
    """
    ledger = finished_ledger(directory)
    changed = []
    for shard in ledger.shards:
        files = {shard.file(directory): shard.sha256, shard.lengths_file(directory): shard.lengths_sha256}
        bad = [str(path) for path, sha256 in files.items() if not path.is_file() or sha256_of(path) != sha256]
        changed += bad
        if not bad:
            advance(shard.texts)
    if changed:
        raise UserError(
            f"expected {len(ledger.shards)} shards as they were made, found changed files: {', '.join(changed)}; "
            "delete them, and the command that prepared the corpus makes them again"
        )
    return ledger
