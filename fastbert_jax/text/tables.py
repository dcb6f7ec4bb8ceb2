"""What a reader gives: a table of rows, of which the first may be looked at before all are read."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.lines import HEAD_ROWS


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The values of a row by column; a missing value is None or absent."""

    where: str
    """The place of the row, such as `train.tsv:17`."""
    values: Mapping[str, Any]


Rows = Iterator[Row | Unreadable]


def row_size(row: Row | Unreadable) -> int:
    """About how many characters a row has."""
    return sum(len(str(value)) for value in row.values.values()) if isinstance(row, Row) else 0


@dataclasses.dataclass(frozen=True)
class Table:
    """An open source of rows; the block of `with` closes it."""

    name: str
    """For messages; with the delimiter if that is not a comma."""
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Rows]
    """Every row with the values of some columns, or more. A row that cannot be read is `Unreadable` in its place.
    Raises `UserError` when the file is damaged as a whole."""
    text_columns: tuple[str, ...] = ()
    """Those that may hold texts."""
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """The order of the classes by column, where the source has one."""
    row_count: int | None = None
    """How many rows there are; None when the rest has to be read to know that."""
    first_rows: Sequence[Row | Unreadable] | None = None
    """The head of a stream; None: `rows` can be called again."""
    is_lines: bool = False
    """Whether a row is a line of text, and `text` no name that the file gives."""
    has_header: bool = False
    """Whether the names of the columns are a line of the file, which may be a row instead."""

    def head(self, columns: Sequence[str]) -> list[Row | Unreadable]:
        """The first rows, up to `HEAD_ROWS`; `rows` gives them again."""
        if self.first_rows is not None:
            return list(self.first_rows)
        return list(itertools.islice(self.rows(columns), HEAD_ROWS))
