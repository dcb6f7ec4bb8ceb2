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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from fastbert_jax.config import BadRow, Delimiter, ReadingConfig
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.log import info, progress_bar
from fastbert_jax.text import builtin, tfds
from fastbert_jax.text.columns import Columns, as_trained, find_columns, flags, listed
from fastbert_jax.text.examples import MOST_CHARACTERS, Example, Unreadable, label_name, text_problem
from fastbert_jax.text.filesystem import expand
from fastbert_jax.text.lines import ENCODING_FLAGS
from fastbert_jax.text.readers import open_lines, open_table
from fastbert_jax.text.tables import Row, Table

Role = Literal["train", "dev", "test"]


class Collection(NamedTuple):
    """Sets with names, behind a scheme: `SCHEME:NAME#SPLIT`."""

    open: Callable[[str, str], Table]
    """A split of a set, by their names. Raises `UserError` for one that is not there."""
    splits: Callable[[str], Sequence[str]]
    """The names of a set's splits."""


COLLECTIONS = {
    "builtin": Collection(builtin.open_builtin, lambda name: builtin.SPLITS),
    "tfds": Collection(tfds.open_tfds, tfds.splits),
}
"""By scheme; one that is added here is read wherever a SPEC is."""
BUILTIN = "builtin:"
STDIN = "-"
FILES_TO_NAME = 5
TOLD_ROWS = 4096
"""Progress is shown after so many rows."""
# What sets call the split that has each role.
ROLE_SPLITS: dict[Role, tuple[str, ...]] = {
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
    note: str
    """Which columns are read, and how to name others if these were guessed or are not those of training.

    Empty where there are no columns, and the model was trained on single texts.
    """
    keep: tuple[str, ...] = ()
    """Columns whose values come with each record."""

    def __iter__(self) -> Iterator[Example | Unreadable]:
        """Raises `UserError` when the source is damaged as a whole or ends without a row."""
        empty = True
        for row in self.table.rows(tuple(dict.fromkeys((*self.columns.used, *self.keep)))):
            empty = False
            if isinstance(row, Unreadable):
                yield dataclasses.replace(row, kept=(None,) * len(self.keep)) if self.keep else row
            else:
                kept = tuple(row.values.get(column) for column in self.keep)
                yield _example(row, self.columns, need_label=self.need_label, kept=kept)
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
    """Which columns are read, and how to name others; empty for a built-in set."""

    def tell(self) -> None:
        """Log which columns are read, and how many rows could not be, if any."""
        if self.note:
            info(self.note)
        if self.rejected:
            count, first = len(self.rejected), self.rejected[0]
            info(f"{count} rows could not be read and were left out; the first: {first.where}: {first.problem}")


@contextlib.contextmanager
def open_examples(
    spec: str,
    data: ReadingConfig,
    *,
    need_label: bool = False,
    role: Role = "train",
    trained: ReadingConfig | None = None,
    keep: tuple[str, ...] = (),
    option: str = "--keep",
) -> Iterator[ExampleReader]:
    """Open the rows of `spec`; `-` reads one text a line from standard input.

    Args:
      need_label: a row without a label is unreadable.
      role: picks the split when `spec` names none.
      trained: how the texts that a model was trained on were read; what `data` leaves open is read like them.
      keep: columns whose values come with each record.
      option: where a user names them.

    Raises:
      UserError: the source or its columns are not there.
    """
    with contextlib.ExitStack() as stack:
        if spec == STDIN:
            table = open_lines(sys.stdin.buffer, "stdin", encoding=data.encoding)
        elif is_named_set(spec):
            table = _open_set(spec, role, data, need_label=need_label)
        else:
            table = _open_file(spec, data, trained, stack)
        if table.is_lines:
            if need_label:
                raise UserError(f"{spec}: expected texts with labels, found lines of text alone; use a .tsv file")
            columns = Columns(("text",), None, None)
        else:
            columns = find_columns(table, as_trained(table, data, trained) if trained else data, need_label=need_label)
        for column in keep:
            if column not in table.columns:
                raise UserError(
                    f"{table.name}: {option}: expected a column {column!r}, found {listed(table)}; "
                    f"{nearest(column, table.columns)}"
                )
        yield ExampleReader(table, columns, need_label, _note(table, columns, data, trained, need_label), keep)


def _note(table: Table, read: Columns, data: ReadingConfig, trained: ReadingConfig | None, need_label: bool) -> str:
    before = Columns.of_training(trained, need_label=need_label) if trained else None
    if table.is_lines and not (before and (before.pair or len(before.text) > 1)):
        return ""
    columns = read if need_label else dataclasses.replace(read, label=None)
    same = before is not None and columns.same(before)
    found = "one text a line" if table.is_lines else f"{columns}{', as in training' if same else ''}"
    words = [f"{table.name}: {found}."]
    guessed = [key for key, name in (("text", columns.text[0]), ("label", columns.label)) if name in columns.guessed]
    if guessed:
        words.append(
            f"Guessed from the contents of {' and '.join(map(repr, columns.guessed))}; "
            f"name others with {flags(*(f'{key}_column' for key in guessed))}."
        )
    named = data.text_column or data.pair_column or (need_label and data.label_column)
    if before and not same and (table.is_lines or not named):
        words.append(f"The model was trained on {before}: not all of these are there.")
    return " ".join(words)


def _open_file(spec: str, data: ReadingConfig, trained: ReadingConfig | None, stack: contextlib.ExitStack) -> Table:
    """Open a file, with the delimiter of training where `data` names none and the text's column is found by it."""
    if trained and data.delimiter is Delimiter.AUTO and trained.delimiter is not Delimiter.AUTO:
        table = stack.enter_context(open_table(spec, delimiter=trained.delimiter, encoding=data.encoding))
        if as_trained(table, ReadingConfig(), trained).text_column:
            return table
    return stack.enter_context(open_table(spec, delimiter=data.delimiter, encoding=data.encoding))


def read_examples(
    spec: str,
    data: ReadingConfig,
    *,
    need_label: bool,
    role: Role = "train",
    trained: ReadingConfig | None = None,
    keep: tuple[str, ...] = (),
    option: str = "--keep",
) -> Loaded:
    """All examples of `spec`; bad rows stop or are counted, as `data.on_bad_row` says.

    Args: as `open_examples`.

    Raises:
      UserError: what `open_examples` raises, a bad row (with its place) under `stop`, or no good row at all.
    """
    examples: list[Example] = []
    bad: list[Unreadable] = []
    readers: list[ExampleReader] = []
    names = [spec] if spec == STDIN or is_named_set(spec) else expand((spec,), key="files")
    for name in names:
        with (
            open_examples(
                name, data, need_label=need_label, role=role, trained=trained, keep=keep, option=option
            ) as reader,
            progress_bar("read", total=reader.table.row_count, unit="rows") as advance,
        ):
            readers.append(reader)
            if reader.columns != (first := readers[0]).columns:
                raise UserError(
                    f"{reader.table.name}: expected the columns of {first.table.name} ({first.columns}), found "
                    f"{reader.columns}; name them: {flags('text_column', 'pair_column', 'label_column')}"
                )
            for number, record in enumerate(reader, start=1):
                if number % TOLD_ROWS == 0:
                    advance(TOLD_ROWS, name)
                if isinstance(record, Example):
                    examples.append(record)
                    continue
                require_skip(record, data)
                bad.append(record)
    table, columns = readers[0].table, readers[0].columns
    if not examples:
        raise UserError(f"{bad[0].where}: {bad[0].problem}; none of the {len(bad)} rows of {spec} can be read")
    notes = [] if spec.startswith(BUILTIN) else [readers[0].note]
    if len(names) > 1:
        first_names = ", ".join(names[:FILES_TO_NAME]) + (", ..." if len(names) > FILES_TO_NAME else "")
        notes.append(f"{spec} is {len(names)} files: {first_names}.")
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
    if not is_named_set(spec):
        return None
    scheme, name, _ = _parts(spec)
    known = COLLECTIONS[scheme].splits(name)
    found = next((split for split in ROLE_SPLITS[role] if split in known), None)
    own = f"{scheme}:{name}#{found}"
    if found is None or own == spec:
        return None
    if role == "test" and need_label:
        with open_examples(own, data) as reader:
            first = next((record for record in reader if isinstance(record, Example)), None)
        if first is None or first.label is None:
            return None
    return own


def is_named_set(spec: str) -> bool:
    """Whether a SPEC names a set of a collection, and no file."""
    return spec.partition(":")[0] in COLLECTIONS and ":" in spec


def _parts(spec: str) -> tuple[str, str, str]:
    """Scheme, name and split, which may be empty."""
    scheme, _, rest = spec.partition(":")
    name, _, split = rest.partition("#")
    return scheme, name, split


def _open_set(spec: str, role: Role, data: ReadingConfig, *, need_label: bool) -> Table:
    """Open a split of a set, by its name or its role; dev replaces a test split that is missing or lacks its labels."""
    if "#" not in spec:
        own = own_split(spec, role, data, need_label=need_label)
        if own is None and role == "test":
            own = own_split(spec, "dev", data)
        if own is None:
            scheme, name, _ = _parts(spec)
            known = list(COLLECTIONS[scheme].splits(name))
            raise UserError(f"{spec}: expected a {role} split, found {known}; name one: {spec}#SPLIT")
        spec = own
    scheme, name, split = _parts(spec)
    return COLLECTIONS[scheme].open(name, split)


def _example(row: Row, columns: Columns, *, need_label: bool, kept: tuple[Any, ...]) -> Example | Unreadable:
    text: Any = _cut(_joined([row.values.get(column) for column in columns.text]))
    if columns.pair is not None:
        text = text, _cut(row.values.get(columns.pair))
    value = None if columns.label is None else row.values.get(columns.label)
    label = label_name(value)
    problem = text_problem(text)
    if isinstance(text, str) and text and not text.strip("\x00"):
        problem = "expected a text, found nothing but NUL bytes, as a damaged disk leaves them"
    if problem is None and need_label:
        problem = _label_problem(value, label)
    return Example(text, label, row.where, kept) if problem is None else Unreadable(row.where, problem, kept)


def _joined(values: Sequence[Any]) -> Any:
    """The values of a text's columns as one text, a line break between them, without those that are missing or blank.

    A value that is no text is given as it is, which is no text then.
    """
    if len(values) == 1:
        return values[0]
    there = [value for value in values if value is not None and value == value]
    if not there or not all(isinstance(value, str) for value in there):
        return next((value for value in there if not isinstance(value, str)), None)
    return "\n".join(value for value in there if value.strip())


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
