"""The form that all readers share: named columns, and rows that come one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastbert_jax.text.examples import Unreadable


@dataclass(frozen=True, slots=True)
class Row:
    """The values of the columns that were asked for, in that order; None is a missing one."""

    where: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A source of rows, opened but not read.

    `rows(columns)` starts reading from the first row; a row that cannot be read comes as `Unreadable`, so that
    its place among the others is kept. `text_columns` are those that may hold texts, `class_names` the order
    of the classes by column, `row_count` how many rows there are, where the source knows them without reading.
    """

    name: str
    columns: tuple[str, ...]
    rows: Callable[[tuple[str, ...]], Iterator[Row | Unreadable]]
    text_columns: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    row_count: int | None = None
