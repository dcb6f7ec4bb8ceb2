"""Settings of texts: where they are, how they are read, and how a corpus is prepared."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from fastbert_jax.config.shared import (
    AUTO_ENCODING,
    BadRow,
    Checked,
    ColumnNames,
    Delimiter,
    require,
    require_at_least,
    require_local,
)

PREPARED = "prepared:"
"""Begins the SPEC of a corpus that `python -m fastbert_jax.text.prepare` made."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingConfig(Checked):
    """How rows of texts are read."""

    text_column: ColumnNames = ()
    """Column of the text; empty: found by its name, else by its content. Several are joined to one text, in this order,
    with a line break between them; blank ones are left out."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""
    label_column: str = ""
    """Column of the label; empty: found by its name, else by its content."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, with its file and line, or `skip` and count it."""
    delimiter: Delimiter = Delimiter.AUTO
    """Character between the columns of .csv files; `auto`: the one that fits the first lines."""
    encoding: str = AUTO_ENCODING
    """Encoding of text files, such as `latin-1`, `cp1252` or `gb18030`; a byte order mark decides where there is one.
    `auto`: UTF-8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = (self.text_column,) if isinstance(self.text_column, str) else tuple(self.text_column)
        object.__setattr__(self, "text_column", tuple(filter(None, names)))
        require(len(set(self.text_columns)) == len(self.text_columns), "text_column", "each column once", names)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of the text, in the order in which they are joined; none: to be found."""
        return tuple(self.text_column)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(ReadingConfig):
    """Where the texts are and how they are cut.

    A SPEC is `builtin:NAME`, `tfds:NAME`, or a .tsv, .csv, .jsonl, .json, .parquet or .arrayrecord file, the text ones
    as they are or compressed (`train.csv.gz`, `train.jsonl.zst`), local or behind a `scheme://` that fsspec knows, or a
    pattern in quotes for several; `#SPLIT` after a builtin or tfds name picks a split (`tfds:glue/sst2#validation`).
    """

    SECTION: ClassVar[str] = "data"

    train: str = ""
    """SPEC of the labelled training texts."""
    dev: str = ""
    """SPEC of the texts that choose the best step; empty: the set's own dev split, else cut from train."""
    test: str = ""
    """SPEC of the texts that the finished model is measured on; empty: the set's own labelled test split, else cut from
    train, or dev where the set has a dev split of its own."""
    unlabelled: str = ""
    """SPEC of texts to distil on, labels ignored; empty: the training texts. `prepared:DIR` is a corpus that
    `python -m fastbert_jax.text.prepare` made, read from disk; `stream:FILES`, a name or a pattern in quotes, is read
    and tokenised while training runs, repeatedly until distil.steps are done."""
    shuffle_window: int = 65_536
    """stream: only: texts that are held, shuffled and batched at a time, 1 or more."""
    labels: tuple[str, ...] = ()
    """Labels in their order; empty: the data set's own order, else sorted."""
    exclude_labels: tuple[str, ...] = ()
    """Labels whose rows are left out of train, dev and test, and counted; `compare` and `calibrate` then do the
    same."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` it, count it, and list it in the run's `rejected.jsonl`."""
    dev_fraction: float = 0.1
    """Share of train cut off as dev when there is none, in (0, 0.5]."""
    test_fraction: float = 0.1
    """Share of train cut off as test when there is none, in [0, 0.4]; 0: dev is used instead."""
    max_length: int = 128
    """Longest text in tokens, 8 or more, [CLS] and [SEP] included; longer ones are cut and counted."""
    length_buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    """Static lengths that texts are padded to, rising, 4 or more; those over max_length are not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.dev_fraction <= 0.5, "data.dev_fraction", "a share in (0, 0.5]", self.dev_fraction)
        require(0 <= self.test_fraction <= 0.4, "data.test_fraction", "a share in [0, 0.4]", self.test_fraction)
        require_at_least(self, "data.", max_length=8, shuffle_window=1)
        buckets = self.length_buckets
        rises = len(buckets) > 0 and min(buckets) >= 4 and list(buckets) == sorted(set(buckets))
        require(rises, "data.length_buckets", "rising lengths of 4 or more", buckets)
        require(len(set(self.labels)) == len(self.labels), "data.labels", "each label once", self.labels)
        both = [label for label in self.exclude_labels if label in self.labels]
        require(not both, "data.exclude_labels", "none of --data.labels", both)
        if self.unlabelled.startswith(PREPARED):
            require_local("data.unlabelled", self.unlabelled)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The static lengths in use: the buckets below max_length, then max_length itself."""
        return (*(b for b in self.length_buckets if b < self.max_length), self.max_length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig(ReadingConfig):
    """Tokenise a corpus once, into checksummed shards for `train.py --data.unlabelled prepared:DIR`.

    Example:

        python -m fastbert_jax.text.prepare --input 'texts/*.jsonl.gz' --output corpora/texts --workers 8

    After a kill, the same command continues; it makes shards again that are missing or cut short. Each input is read by
    one worker, so split a huge file. The shards do not depend on the number of workers and shares.
    """

    input: tuple[str, ...] = ()
    """.jsonl, .txt, .tsv, .csv (also as .gz or .zst), .parquet or .arrayrecord files, or patterns in quotes; local or
    behind a `scheme://` that fsspec knows."""
    output: str = ""
    """Local directory of the corpus."""
    tokenizer: str = "builtin:minilm"
    """`builtin:minilm`, a directory with a tokenizer (a Hugging Face model, or a run's `model`), or the name of a model
    of the Hugging Face Hub that `hf download NAME` has fetched."""
    max_length: int = 128
    """Longest text in tokens, 8 or more, [CLS] and [SEP] included; longer ones are cut and counted."""
    shard_texts: int = 131_072
    """Rows in a shard, 1 or more; each shard holds texts of one input."""
    workers: int = 1
    """Processes that share the inputs; 0: one for each core."""
    share: str = "0/1"
    """I/N: prepare only every N-th input, from number I on (0 to N-1), into DIR/I-of-N, so that N machines share the
    work. The corpus is complete when DIR holds all N shares. DIR may be on a disk that they share, or a copy of all."""
    verify: str = ""
    """Only read every byte of the corpus in this directory and compare checksums."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("output", "tokenizer", "verify"):
            require_local(key, getattr(self, key))
        given = bool(self.input) + bool(self.output)
        expected = "--input and --output to prepare a corpus, or --verify alone"
        require(given == (0 if self.verify else 2), "--input, --output", expected, f"{given} of them")
        require(8 <= self.max_length < 2**16, "max_length", "8 to 65535 tokens", self.max_length)
        require_at_least(self, shard_texts=1, workers=0)
        is_share = re.fullmatch(r"\d{1,6}/\d{1,6}", self.share) and self.number_of_share[0] < self.number_of_share[1]
        require(bool(is_share), "share", "I/N, such as 0/16, the first of 16, to 15/16, the last", self.share)

    @property
    def number_of_share(self) -> tuple[int, int]:
        """I and N of `share`."""
        number, shares = map(int, self.share.split("/"))
        return number, shares
