"""From a SPEC to examples: opens the source, finds split and columns, and checks every row as it is read.

with open_examples("texts.csv.gz", DataConfig()) as reader:   # opens the file, once
    reader.note                                               # "texts.csv.gz: text in 'text'."
    for record in reader:                                     # every row, in order, read as it is asked for
        ...                                                   # an Example, or Unreadable with the reason
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, Literal

from fastbert_jax.config import BadRow, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import info
from fastbert_jax.text import builtin, tfds
from fastbert_jax.text.columns import Columns, find_columns, flags
from fastbert_jax.text.examples import MOST_CHARACTERS, Example, Unreadable, label_name, text_problem
from fastbert_jax.text.filesystem import expand
from fastbert_jax.text.lines import ENCODING_FLAGS
from fastbert_jax.text.readers import open_lines, open_table
from fastbert_jax.text.tables import Row, Table

Role = Literal["train", "dev", "test"]

BUILTIN, TFDS = "builtin:", "tfds:"
STDIN = "-"
FILES_TO_NAME = 5
# What TFDS sets call the split that has each role.
TFDS_SPLITS: dict[Role, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("validation", "dev", "valid", "val", "validation_matched"),
    "test": ("test", "test_matched"),
}


@dataclasses.dataclass(frozen=True)
class ExampleReader:
    """An open source of examples; iterating reads every row, once."""

    table: Table
    columns: Columns
    need_label: bool

    @property
    def note(self) -> str:
        """Which columns are read, and how to name others if these were guessed."""
        columns = self.columns if self.need_label else dataclasses.replace(self.columns, label=None)
        guessed = [key for key in ("text", "label") if getattr(columns, key) in columns.guessed]
        if not guessed:
            return f"{self.table.name}: {columns}."
        return (
            f"{self.table.name}: {columns}. Guessed from the contents of {' and '.join(map(repr, columns.guessed))}; "
            f"name others with {flags(*(f'{key}_column' for key in guessed))}."
        )

    def __iter__(self) -> Iterator[Example | Unreadable]:
        """Raises `UserError` when the source is damaged as a whole or ends without a row."""
        empty = True
        for row in self.table.rows(self.columns.used):
            empty = False
            yield row if isinstance(row, Unreadable) else _example(row, self.columns, need_label=self.need_label)
        if empty:
            raise UserError(f"{self.table.name}: expected rows, found none")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """All examples of one SPEC, with its columns and unreadable rows."""

    examples: list[Example]
    rejected: tuple[Unreadable, ...]
    """The rows that could not be read."""
    columns: Columns
    class_names: tuple[str, ...]
    """The classes in the set's own order; empty when it has none."""
    note: str
    """Which columns were chosen, and how to name others; empty when the settings name all of them."""

    def tell_skipped(self) -> None:
        """Log how many rows could not be read, if any."""
        if self.rejected:
            count, first = len(self.rejected), self.rejected[0]
            info(f"{count} rows could not be read and were left out; the first: {first.where}: {first.problem}")


@contextlib.contextmanager
def open_examples(
    spec: str, data: ReadingConfig, *, need_label: bool = False, role: Role = "train"
) -> Iterator[ExampleReader]:
    """Open the rows of `spec`; `-` reads one text a line from standard input.

    Args:
      need_label: a row without a label is unreadable.
      role: picks the split when `spec` names none.

    Raises:
      UserError: the source or its columns are not there.
    """
    with contextlib.ExitStack() as stack:
        if spec == STDIN:
            table = open_lines(sys.stdin.buffer, "stdin", encoding=data.encoding)
        elif spec.startswith((BUILTIN, TFDS)):
            table = _open_set(spec if "#" in spec else _with_split(spec, role, data, need_label=need_label))
        else:
            table = stack.enter_context(open_table(spec, delimiter=data.delimiter, encoding=data.encoding))
        if table.is_lines:
            if need_label:
                raise UserError(f"{spec}: expected texts with labels, found lines of text alone; use a .tsv file")
            columns = Columns("text", None, None)
        else:
            columns = find_columns(table, data, need_label=need_label)
        yield ExampleReader(table, columns, need_label)


def read_examples(spec: str, data: ReadingConfig, *, need_label: bool, role: Role = "train") -> Loaded:
    """All examples of `spec`; bad rows stop or are counted, as `data.on_bad_row` says.

    Raises:
      UserError: what `open_examples` raises, a bad row (with its place) under `stop`, or no good row at all.
    """
    examples: list[Example] = []
    bad: list[Unreadable] = []
    readers: list[ExampleReader] = []
    names = [spec] if spec == STDIN or spec.startswith((BUILTIN, TFDS)) else expand((spec,), key="files")
    for name in names:
        with open_examples(name, data, need_label=need_label, role=role) as reader:
            readers.append(reader)
            if reader.columns != (first := readers[0]).columns:
                raise UserError(
                    f"{reader.table.name}: expected the columns of {first.table.name} ({first.columns}), found "
                    f"{reader.columns}; name them: {flags('text_column', 'pair_column', 'label_column')}"
                )
            for record in reader:
                if isinstance(record, Example):
                    examples.append(record)
                    continue
                require_skip(record, data)
                bad.append(record)
    table, columns = readers[0].table, readers[0].columns
    if not examples:
        raise UserError(f"{bad[0].where}: {bad[0].problem}; none of the {len(bad)} rows of {spec} can be read")
    named = spec.startswith(BUILTIN) or (data.text_column and data.label_column and data.pair_column)
    notes = [] if named else [readers[0].note]
    if len(names) > 1:
        listed = ", ".join(names[:FILES_TO_NAME]) + (", ..." if len(names) > FILES_TO_NAME else "")
        notes.append(f"{spec} is {len(names)} files: {listed}.")
    class_names = table.class_names.get(columns.label or "", ())
    return Loaded(examples, tuple(bad), columns, class_names, " ".join(notes))


def require_skip(row: Unreadable, data: ReadingConfig) -> None:
    """Raise `UserError` at a bad row unless `data` says that such rows are skipped."""
    if data.on_bad_row is BadRow.STOP:
        encoding = (
            f"name the file's encoding, such as {ENCODING_FLAGS}, " if row.problem.startswith("expected UTF-8") else ""
        )
        raise UserError(
            f"{row.where}: {row.problem}; {encoding}fix the row, or skip such rows: {flags('on_bad_row', value='skip')}"
        )


def own_split(spec: str, role: Role, data: ReadingConfig, *, need_label: bool = True) -> str | None:
    """The SPEC of another split of the same set that has `role`; None for files and for sets without one.

    Where labels are needed, a test split without them, as GLUE's are, does not count.
    """
    if spec.startswith(BUILTIN):
        own = f"{spec.split('#')[0]}#{role}"
        return None if own == spec else own
    if not spec.startswith(TFDS):
        return None
    name = spec.removeprefix(TFDS).split("#")[0]
    known = tfds.splits(name)
    found = next((split for split in TFDS_SPLITS[role] if split in known), None)
    own = f"{TFDS}{name}#{found}"
    if found is None or own == spec:
        return None
    if role == "test" and need_label:
        with open_examples(own, data) as reader:
            first = next((record for record in reader if isinstance(record, Example)), None)
        if first is None or first.label is None:
            return None
    return own


def _open_set(spec: str) -> Table:
    scheme, _, rest = spec.partition(":")
    name, _, split = rest.partition("#")
    return (builtin.open_builtin if scheme == "builtin" else tfds.open_tfds)(name, split)


def _with_split(spec: str, role: Role, data: ReadingConfig, *, need_label: bool) -> str:
    """`spec` with the split that has `role`; dev replaces a test split that is missing or lacks its labels."""
    own = own_split(spec, role, data, need_label=need_label)
    if own is None and role == "test":
        own = own_split(spec, "dev", data)
    if own is None:
        known = list(tfds.splits(spec.removeprefix(TFDS)))
        raise UserError(f"{spec}: expected a {role} split, found {known}; name one: {spec}#SPLIT")
    return own


def _example(row: Row, columns: Columns, *, need_label: bool) -> Example | Unreadable:
    text: Any = _cut(row.values.get(columns.text))
    if columns.pair is not None:
        text = text, _cut(row.values.get(columns.pair))
    value = None if columns.label is None else row.values.get(columns.label)
    label = label_name(value)
    problem = text_problem(text)
    if isinstance(text, str) and text and not text.strip("\x00"):
        problem = "expected a text, found nothing but NUL bytes, as a damaged disk leaves them"
    if problem is None and need_label:
        problem = _label_problem(value, label)
    return Example(text, label, row.where) if problem is None else Unreadable(row.where, problem)


def _cut(text: Any) -> Any:
    """A text without what is never tokenised; one character of that is left, by which it is counted as cut."""
    return text[: MOST_CHARACTERS + 1] if isinstance(text, str) else text


def _label_problem(value: Any, label: str | None) -> str | None:
    if label is None:
        is_empty = value is None or value != value or isinstance(value, str)
        found = "none" if is_empty else f"the {type(value).__name__} {str(value)[:40]!r}"
        return f"expected a label, found {found}"
    problem = text_problem(label)
    return None if problem is None else problem.replace("the text", "the label")
