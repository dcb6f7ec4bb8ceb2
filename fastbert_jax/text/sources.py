"""From a SPEC to examples: picks the reader, the split and the columns, and judges every row."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import info
from fastbert_jax.text import builtin, files, tfds
from fastbert_jax.text.columns import Columns, find_columns, flags
from fastbert_jax.text.compression import without_compression
from fastbert_jax.text.examples import Example, Unreadable, label_name, text_problem
from fastbert_jax.text.filesystem import is_file, place_of, size_of
from fastbert_jax.text.tables import Row, Table

Role = Literal["train", "dev", "test"]

BUILTIN, TFDS = "builtin:", "tfds:"
STDIN = "-"
# A larger file is not read a first time only to count its rows.
COUNT_BYTES = 2**26
# What TFDS sets call the split that plays each role.
TFDS_SPLITS: dict[Role, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("validation", "dev", "valid", "val", "validation_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Loaded:
    """All examples of one SPEC, and what was found out on the way."""

    examples: list[Example]
    rejected: tuple[Unreadable, ...]
    """The rows that could not be read."""
    columns: Columns
    class_names: tuple[str, ...]
    """The classes in the set's own order; empty when it knows none."""
    note: str
    """Which columns were found by themselves, and how to name others; empty when none had to be."""

    @property
    def skipped(self) -> int:
        """How many rows could not be read."""
        return len(self.rejected)

    def tell_skipped(self) -> None:
        """Note how many rows could not be read, if any."""
        if self.rejected:
            count, first = self.skipped, self.rejected[0]
            info(f"{count} rows could not be read and were left out; the first: {first.where}: {first.problem}")


def read_records(
    spec: str, data: DataConfig, *, need_label: bool = False, role: Role = "train"
) -> Iterator[Example | Unreadable]:
    """Every row of `spec` in order, read as it is asked for: an `Example`, or `Unreadable` with the reason.

    `-` reads one text a line from standard input. `role` picks the split when `spec` names none.

    Raises:
      UserError: at the call when the source or its columns are not there; later when it is damaged as a whole or
        ends without a row.
    """
    table, columns = _open(spec, data, need_label=need_label, role=role)
    return _records(table, columns, need_label=need_label)


def count_rows(spec: str, data: DataConfig, *, role: Role = "train") -> int | None:
    """How many rows `read_records` gives; None where only reading a large file or a stream to its end would tell.

    Raises:
      UserError: what `read_records` raises.
    """
    if spec == STDIN:
        return None
    table, columns = _open(spec, data, need_label=False, role=role)
    if table.row_count is not None:
        return table.row_count
    place = place_of(spec)
    if is_file(place) and size_of(place) > COUNT_BYTES:
        return None
    return sum(1 for _ in _records(table, columns, need_label=False))


def read_examples(spec: str, data: DataConfig, *, need_label: bool, role: Role = "train") -> Loaded:
    """All examples of `spec`; bad rows stop or are counted, as `data.on_bad_row` says.

    Raises:
      UserError: what `read_records` raises, a bad row (with its place) under `stop`, or no good row at all.
    """
    table, columns = _open(spec, data, need_label=need_label, role=role)
    examples: list[Example] = []
    bad: list[Unreadable] = []
    for record in _records(table, columns, need_label=need_label):
        if isinstance(record, Example):
            examples.append(record)
            continue
        if data.on_bad_row is BadRow.STOP:
            skip = flags("on_bad_row", value="skip")
            raise UserError(f"{record.where}: {record.problem}; fix the row or skip such rows ({skip})")
        bad.append(record)
    if not examples:
        raise UserError(f"{bad[0].where}: {bad[0].problem}; none of the {len(bad)} rows of {table.name} can be read")
    guessed = not (spec.startswith(BUILTIN) or (data.text_column and data.label_column and data.pair_column))
    told = _told(table, columns) if guessed else ""
    class_names = table.class_names.get(columns.label or "", ())
    return Loaded(examples, tuple(bad), columns, class_names, told)


def what_is_read(spec: str, data: DataConfig) -> str:
    """Where the texts of `spec` stand, in a sentence: `a.jsonl: text in 'text'.`

    Raises:
      UserError: the source or its columns are not there.
    """
    table, columns = _open(spec, data, need_label=False, role="train")
    return _told(table, dataclasses.replace(columns, label=None))


def what_is_guessed(spec: str, data: DataConfig, *, role: Role) -> str:
    """What `read_records` takes for the text, where it goes by more than the names of columns; else empty.

    Raises:
      UserError: what `read_records` raises.
    """
    if spec == STDIN:
        return ""
    table, columns = _open(spec, data, need_label=False, role=role)
    return _told(table, dataclasses.replace(columns, label=None)) if columns.guessed else ""


def own_split(spec: str, role: Role, data: DataConfig, *, need_label: bool = True) -> str | None:
    """The SPEC of another split of the same set that plays `role`; None for files and for sets without one.

    Where labels are needed, a test split without them, as GLUE's are, is none.
    """
    if spec.startswith(BUILTIN):
        own = f"{spec.split('#')[0]}#{role}"
        return None if own == spec else own
    if not spec.startswith(TFDS):
        return None
    name = spec.removeprefix(TFDS).split("#")[0]
    known = tfds.splits(name)
    found = next((split for split in TFDS_SPLITS[role] if split in known), None)
    if found is None:
        return None
    own = f"{TFDS}{name}#{found}"
    if own == spec:
        return None
    if role == "test" and need_label:
        first = next((record for record in read_records(own, data) if isinstance(record, Example)), None)
        if first is None or first.label is None:
            return None
    return own


def _told(table: Table, columns: Columns) -> str:
    words = f"{table.name}: {columns}."
    if columns.guessed:
        names = " and ".join(map(repr, columns.guessed))
        keys = [key for key in ("text", "label") if getattr(columns, key) in columns.guessed]
        others = flags(*(f"{key}_column" for key in keys))
        words += f" Guessed by what stands in {names}; name others with {others}."
    return words


def _open(spec: str, data: DataConfig, *, need_label: bool, role: Role) -> tuple[Table, Columns]:
    table = _open_table(spec, data, need_label=need_label, role=role)
    if spec == STDIN or without_compression(spec).suffix.lower() == ".txt":
        if need_label:
            raise UserError(f"{spec}: expected texts with labels, found lines of text alone; use a .tsv file")
        return table, Columns("text", None, None)
    return table, find_columns(table, data, need_label=need_label)


def _open_table(spec: str, data: DataConfig, *, need_label: bool, role: Role) -> Table:
    if spec == STDIN:
        return files.open_lines(sys.stdin.buffer, "stdin")
    if not spec.startswith((BUILTIN, TFDS)):
        return files.open_file(spec, delimiter=data.delimiter)
    if "#" not in spec:
        spec = _with_split(spec, role, data, need_label=need_label)
    scheme, _, rest = spec.partition(":")
    name, _, split = rest.partition("#")
    return builtin.open_builtin(name, split) if scheme == "builtin" else tfds.open_tfds(name, split)


def _with_split(spec: str, role: Role, data: DataConfig, *, need_label: bool) -> str:
    """`spec` with the split that plays `role`; dev stands in for a test split that is missing or lacks its labels."""
    own = own_split(spec, role, data, need_label=need_label)
    if own is None and role == "test":
        own = own_split(spec, "dev", data)
    if own is None:
        known = list(tfds.splits(spec.removeprefix(TFDS)))
        raise UserError(f"{spec}: expected a {role} split, found {known}; name one: {spec}#SPLIT")
    return own


def _records(table: Table, columns: Columns, *, need_label: bool) -> Iterator[Example | Unreadable]:
    wanted = tuple(column for column in (columns.text, columns.pair, columns.label) if column is not None)
    empty = True
    for row in table.rows(wanted):
        empty = False
        yield row if isinstance(row, Unreadable) else _example(row, columns, need_label=need_label)
    if empty:
        raise UserError(f"{table.name}: expected rows, found none")


def _example(row: Row, columns: Columns, *, need_label: bool) -> Example | Unreadable:
    text = row.values[0] if columns.pair is None else row.values[:2]
    label = None if columns.label is None else label_name(row.values[-1])
    problem = text_problem(text) or (_label_problem(row.values[-1], label) if need_label else None)
    return Example(text, label, row.where) if problem is None else Unreadable(row.where, problem)


def _label_problem(value: Any, label: str | None) -> str | None:
    if label is None and (value is None or value != value or isinstance(value, str)):
        return "expected a label, found none"
    if label is None:
        return f"expected a label, found the {type(value).__name__} {str(value)[:40]!r}"
    problem = text_problem(label)
    return None if problem is None else problem.replace("the text", "the label")
