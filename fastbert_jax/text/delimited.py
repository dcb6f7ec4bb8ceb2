"""Readers of .tsv and .csv files: a line with the names of the columns, then a row a record."""

from __future__ import annotations

import csv
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Sequence

from fastbert_jax.config import Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.text import lines
from fastbert_jax.text.compression import opened
from fastbert_jax.text.examples import Unreadable, text_problem
from fastbert_jax.text.filesystem import Place
from fastbert_jax.text.tables import Row, Table

CHARACTERS = {Delimiter.COMMA: ",", Delimiter.SEMICOLON: ";", Delimiter.TAB: "\t", Delimiter.PIPE: "|"}
# Records that are looked at to know a file's delimiter.
RECORDS_TO_LOOK_AT = 50

Records = Iterator[tuple[int, list[str] | str]]
"""(line where it starts, fields or the problem) of each record."""


def open_tsv(path: Place) -> Table:
    """A file of lines that tabs cut; quotes are characters like any other.

    Raises:
      UserError: its first line holds no names of columns.
    """
    return _with_header(path, str(path), functools.partial(_tsv_records, path))


def open_csv(path: Place, *, delimiter: Delimiter) -> Table:
    """A file of records whose fields may be quoted, and then hold line breaks.

    Raises:
      UserError: its first line holds no names of columns, or nobody can tell what stands between them.
    """
    chosen = _delimiter_of(path) if delimiter is Delimiter.AUTO else delimiter
    name = str(path) if chosen is Delimiter.COMMA else f"{path} ({chosen.value}s between its columns)"
    return _with_header(path, name, functools.partial(_csv_records, path, chosen))


def _tsv_records(path: Place) -> Records:
    with opened(path) as stream:
        for number, line in enumerate(lines.lines_of(stream, str(path)), start=1):
            yield number, line.split("\t")


def _csv_records(path: Place, delimiter: Delimiter) -> Records:
    csv.field_size_limit(lines.LONGEST_LINE)
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(lines.bounded(text, str(path)), delimiter=CHARACTERS[delimiter], strict=True)
        while True:
            start = reader.line_num + 1
            try:
                record: list[str] | str = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise UserError(
                        f"{path}:{start}: expected a closing quote, found none up to the end of the file, so the "
                        f"rows after it cannot be told apart; close the quote, or double it if it belongs to the text"
                    ) from None
                if "field limit" in str(error):
                    raise UserError(
                        f"{path}:{start}: expected fields of at most {lines.LONGEST_LINE:,} characters, found a longer "
                        f"one; look for a quote that is not closed"
                    ) from None
                record = f"expected quotes around whole fields, found {error}"
            yield start, record


def _delimiter_of(path: Place) -> Delimiter:
    """The one that cuts the header, and most of the rows below it into as many columns; commas where none does."""
    fits: dict[Delimiter, tuple[float, int]] = {}
    for delimiter in CHARACTERS:
        header, *rows = [*_some_records(path, delimiter), []][:RECORDS_TO_LOOK_AT]
        rows = [row for row in rows if row]
        if len(header) > 1:
            fits[delimiter] = sum(len(row) == len(header) for row in rows) / max(len(rows), 1), len(header)
    if not fits:
        return Delimiter.COMMA
    best = [delimiter for delimiter in fits if fits[delimiter] == max(fits.values())]
    if len(best) > 1:
        names = [delimiter.value for delimiter in best]
        raise UserError(
            f"{path}:1: expected one character between the columns, found that {' and '.join(names)} fit the first "
            f"lines equally well; name it (train.py --data.delimiter {names[0]}, infer.py --delimiter {names[0]})"
        )
    return best[0]


def _some_records(path: Place, delimiter: Delimiter) -> Iterator[list[str]]:
    """The first records; none of no fields stand for those that this delimiter makes unreadable."""
    try:
        for _, record in itertools.islice(_csv_records(path, delimiter), RECORDS_TO_LOOK_AT):
            yield record if isinstance(record, list) else [""]
    except UserError:  # a quote that seems open with this delimiter; with the right one, reading will tell
        return


def _with_header(path: Place, name: str, records: Callable[[], Records]) -> Table:
    """A table whose first record holds the names of the columns."""
    _, header = next(records(), (1, []))
    if isinstance(header, str):
        raise UserError(f"{path}:1: expected a line with the names of the columns: {header}; mend the line")
    if not header:
        raise UserError(f"{path}:1: expected a line with the names of the columns, found none; add one")
    columns = tuple(column.strip() for column in header)
    _check_names(path, columns)

    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        indices = [columns.index(column) for column in wanted]
        for number, fields in itertools.islice(records(), 1, None):
            where = f"{path}:{number}"
            if isinstance(fields, str):
                yield Unreadable(where, fields)
            elif len(fields) == len(columns):
                yield Row(where, tuple(fields[index] for index in indices))
            elif fields not in ([], [""]):  # an empty line holds no row, unless the only column is a text
                yield Unreadable(where, f"expected {len(columns)} columns, found {len(fields)}")

    return Table(name, columns, rows, text_columns=columns)


def _check_names(path: Place, columns: Sequence[str]) -> None:
    for column in columns:
        problem = text_problem(column)
        if problem:
            found = problem.replace("of the text", "of a column's name")
            raise UserError(f"{path}:1: {found}; save the file again as UTF-8")
    twice = [column for column in dict.fromkeys(columns) if column and columns.count(column) > 1]
    if twice:
        raise UserError(f"{path}:1: expected each column once, found {twice[0]!r} twice; rename one")
