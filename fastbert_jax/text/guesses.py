"""Which column is the text and which the label, told by what stands in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import is_fraction, label_name
from fastbert_jax.text.tables import Row, Table

ROWS_TO_LOOK_AT = 1000
# A text column's texts are so many times as long as those of any other, or it is a coin toss.
LONGER = 2.0
# A label column has at most so many values, and each of them in two rows or more on average.
MOST_CLASSES = 50
# Columns that number the rows; taken for neither.
NUMBERS = ("", "id", "idx", "index", "guid", "uid", "key", "no", "nr", "unnamed: 0")
# The name of a column is no sentence.
LONGEST_NAME = 60


@dataclass(frozen=True)
class Contents:
    """What stands in a column, as far as a guess needs it."""

    name: str
    values: frozenset[str]
    """The different values, as names of labels."""
    mean_length: float
    """Characters of a text; 0 where most values are none."""
    may_be_label: bool

    @property
    def text_words(self) -> str:
        """It as a candidate for the text."""
        return f"{self.name!r} ({self.mean_length:.0f} characters on average)"

    @property
    def label_words(self) -> str:
        """It as a candidate for the label."""
        return f"{self.name!r} ({len(self.values)} values)"


def contents_of(table: Table, columns: Sequence[str]) -> list[Contents]:
    """What the first rows hold in some columns, without those that number the rows."""
    columns = [column for column in columns if column.strip().lower() not in NUMBERS]
    records = itertools.islice(table.rows(tuple(columns)), ROWS_TO_LOOK_AT)
    rows = [record.values for record in records if isinstance(record, Row)]
    return [_contents(name, [row[index] for row in rows]) for index, name in enumerate(columns)]


def guess_text(contents: Sequence[Contents], table: Table, *, remedy: str) -> str | None:
    """The column with by far the longest texts; the only one where there is one; None where there is none.

    Args:
      remedy: how a user names the column.

    Raises:
      UserError: two columns have texts of much the same length; or its name is a row's text.
    """
    likely = [column for column in contents if column.name in table.text_columns]
    if len(likely) > 1:
        likely = [column for column in likely if column.mean_length > 0]
    if not likely:
        return None
    first, *others = sorted(likely, key=lambda column: -column.mean_length)
    rivals = [column for column in others if first.mean_length < LONGER * column.mean_length]
    if rivals:
        candidates = " and ".join(column.text_words for column in (first, *rivals))
        raise UserError(f"{table.name}: expected one column with the longest texts, found {candidates}; {remedy}")
    if len(first.name) > LONGEST_NAME:
        raise _no_names(table, first.name)
    return first.name


def guess_label(contents: Sequence[Contents], table: Table, *, remedy: str) -> str | None:
    """The only column with few different values; None where there is none.

    Args:
      remedy: how a user names the column.

    Raises:
      UserError: there are several; or its name is one of its values.
    """
    likely = [column for column in contents if column.may_be_label]
    if len(likely) > 1:
        candidates = " and ".join(column.label_words for column in likely)
        raise UserError(f"{table.name}: expected one column with few different values, found {candidates}; {remedy}")
    if not likely:
        return None
    if likely[0].name in likely[0].values:
        raise _no_names(table, likely[0].name)
    return likely[0].name


def _contents(name: str, values: Sequence[object]) -> Contents:
    texts = [value for value in values if isinstance(value, str)]
    present = [value for value in values if value is not None and not (isinstance(value, str) and not value.strip())]
    labels = [label_name(value) for value in present]
    known = frozenset(label for label in labels if label is not None)
    usable = None not in labels and not any(map(is_fraction, known))
    return Contents(
        name=name,
        values=known,
        mean_length=sum(map(len, texts)) / len(texts) if 2 * len(texts) > len(values) else 0.0,
        may_be_label=usable and 2 <= len(known) <= min(MOST_CLASSES, len(values) // 2),
    )


def _no_names(table: Table, name: str) -> UserError:
    return UserError(
        f"{table.name}: expected the names of the columns in the first line, found what looks like a row "
        f"({name[:40]!r}); put a line of names above it, such as text and label"
    )
