"""Corpora to distil on that are not read into memory: prepared ones on disk, and streams of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.columns import flags
from fastbert_jax.text.examples import Example, Text
from fastbert_jax.text.filesystem import expand, place_of, size_of
from fastbert_jax.text.prepared_corpus import PreparedCorpus
from fastbert_jax.text.sources import read_records
from fastbert_jax.text.tokenizer import Tokenizer

PREPARED, STREAM = "prepared:", "stream:"


def is_corpus(spec: str) -> bool:
    """Whether a SPEC names a corpus that stays where it is."""
    return spec.startswith((PREPARED, STREAM))


def open_corpus(data: DataConfig, tokenizer: Tokenizer, *, steps: Mapping[str, int]) -> PreparedCorpus | TextStream:
    """The corpus that `data.unlabelled` names.

    Args:
      steps: lengths of the phases that read it, by their keys; 0: by epochs, which a stream has none of.

    Raises:
      UserError: it is not there, does not fit the tokenizer or data.max_length, or is a stream while a phase goes by
        epochs.
    """
    scheme, _, rest = data.unlabelled.partition(":")
    if f"{scheme}:" == PREPARED:
        corpus = PreparedCorpus(rest)
        corpus.check(tokenizer, max_length=data.max_length)
        return corpus
    unknown = [key for key, number in steps.items() if not number]
    if unknown:
        raise UserError(
            f"{unknown[0]}: expected a number of steps, for nobody knows how long {data.unlabelled} is, found 0; give "
            f"one, or go by epochs: python -m fastbert_jax.text.prepare --input '{rest}' --output DIR, then "
            f"--data.unlabelled {PREPARED}DIR"
        )
    return TextStream(rest, data)


class TextStream:
    """The texts of some files, read from their beginning whenever they are asked for."""

    def __init__(self, pattern: str, data: DataConfig) -> None:
        """Find the files.

        Raises:
          UserError: there are none, or they cannot be reached.
        """
        self._data = data
        self.sizes = {name: size_of(place_of(name)) for name in expand((pattern,), key="data.unlabelled")}
        """The bytes of each file, by its name."""

    def __iter__(self) -> Iterator[Text]:
        """The texts of all files in their order.

        Raises:
          UserError: what `read_records` raises, or a bad row under `stop`.
        """
        for name in self.sizes:
            for record in read_records(name, self._data):
                if isinstance(record, Example):
                    yield record.text
                elif self._data.on_bad_row is BadRow.STOP:
                    skip = flags("on_bad_row", value="skip")
                    raise UserError(f"{record.where}: {record.problem}; fix the row or skip such rows ({skip})")

    @property
    def fingerprint(self) -> str:
        """Words that differ when the files do, as far as their names and sizes tell."""
        digest = hashlib.sha256(repr(self.sizes).encode("utf-8")).hexdigest()
        return (
            f"stream of {len(self.sizes)} files, {sum(self.sizes.values())} bytes, sha256 of names and sizes {digest}"
        )
