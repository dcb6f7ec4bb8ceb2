"""Tables of .csv and .tsv files: the character between the columns, quotes, and rows that a stray quote swallows."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from fastbert_jax.config import Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.examples import Unreadable, text_problem
from fastbert_jax.text.filesystem import Place
from fastbert_jax.text.lines import ENCODING_FLAGS, LONGEST_LINE, head_of, numbered
from fastbert_jax.text.tables import Row, Rows, Table, row_size

Records = Iterator[tuple[str, list[str] | str]]
"""(place, fields or what is wrong) of each record of a text file."""

CHARACTERS = {Delimiter.COMMA: ",", Delimiter.SEMICOLON: ";", Delimiter.TAB: "\t", Delimiter.PIPE: "|"}
DELIMITER_RECORDS = 50
"""Records that are looked at to find the delimiter."""
EXCEL_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line of Excel that names the delimiter."""
LINE_END = re.compile(r"\r\n|\r|\n")
QUOTED = re.compile(r'"([^"]|"")*"')
MANY_LINES, FEW_ROWS = 5, 0.01
"""A text of a single column that has more lines is reported, if at most this share of the first rows has several."""
FEW_VALUES = 50
"""A column of at most so many values, in twice as many rows, has no other value in a row that a quote swallowed."""


def csv_table(place: Place, lines: Iterator[str], delimiter: Delimiter) -> Table:
    """The table of a .csv file; quoted fields may hold line breaks.

    Raises:
      UserError: two delimiters fit equally well, or the header is missing or cannot be read.
    """
    csv.field_size_limit(LONGEST_LINE)
    first, lines = head_of(lines, len)
    if excel := EXCEL_LINE.fullmatch(first[0]) if first else None:
        named = [delimiter for delimiter, character in CHARACTERS.items() if character == excel[1]]
        delimiter = named[0] if named and delimiter is Delimiter.AUTO else delimiter
    if delimiter is Delimiter.AUTO:
        rows = first[1:] if excel else [line for line in first if not line.startswith("#")]
        delimiter = _delimiter_of(place, rows or first)
    start = 1 if excel else _header(first, lambda lines: _fit(place, lines, delimiter)[1])
    blanks = _blanks_before_quotes(place, first[start:], delimiter)
    name = str(place) if delimiter is Delimiter.COMMA else f"{place} ({delimiter.value}s between its columns)"
    rest = itertools.islice(lines, start, None)
    records = csv_records(place, rest, delimiter, start=start, blanks=blanks)
    return _table(place, name, records, CHARACTERS[delimiter])


def tsv_table(place: Place, lines: Iterator[str]) -> Table:
    """The table of a .tsv file; quotes are characters like any other, unless the first lines are quoted."""
    first, lines = head_of(lines, len)
    if first and EXCEL_LINE.fullmatch(first[0]):
        return csv_table(place, lines, Delimiter.AUTO)
    if _quotes_fields(place, first):
        table = csv_table(place, lines, Delimiter.TAB)
        return dataclasses.replace(table, name=f"{place} (with quoted columns)")
    start = _header(first, lambda lines: lines[0].count("\t"))
    records = ((where, line.split("\t")) for where, line in numbered(lines, place))
    return _table(place, str(place), itertools.islice(records, start, None), "\t")


def _table(place: Place, name: str, records: Records, delimiter: str) -> Table:
    """A table whose first record holds the names of the columns."""
    where, header = next(records, (f"{place}:1", []))
    if isinstance(header, str):
        raise UserError(f"{where}: expected a line with the names of the columns: {header}; fix the line")
    if not header:
        raise UserError(f"{where}: expected a line with the names of the columns, found none; add one")
    if header[0].lstrip().startswith(('{"', "[{", "[[", '["')):
        raise UserError(
            f"{where}: expected a line with the names of the columns, found JSON; let the file's name end in .jsonl "
            "(one object a line) or .json (a list of them)"
        )
    columns = tuple(column.strip() for column in header)
    for column in columns:
        if problem := text_problem(column):
            found = problem.replace("of the text", "of a column's name")
            raise UserError(
                f"{where}: {found}; save the file again as UTF-8, or name its encoding, such as {ENCODING_FLAGS}"
            )
        if column and columns.count(column) > 1:
            raise UserError(f"{where}: expected each column once, found {column!r} twice; rename one")
    head, records = head_of(records, lambda record: sum(map(len, record[1])))
    whole = [fields for _, fields in head if not isinstance(fields, str) and len(fields) == len(columns)]
    first, rows = head_of(_rows(columns, records, Swallowed(delimiter, whole)), row_size)
    return Table(name, columns, lambda wanted: rows, text_columns=columns, first_rows=first, has_header=True)


def _rows(columns: tuple[str, ...], records: Records, swallowed: Swallowed) -> Rows:
    for where, fields in records:
        problem = fields if isinstance(fields, str) else ""
        if not problem and len(fields) == len(columns):
            problem = swallowed.problem(where, fields)
        elif not problem:
            if fields in ([], [""]):  # an empty line holds no row, unless the only column is a text
                continue
            problem = f"expected {len(columns)} columns, found {len(fields)}"
        yield Unreadable(where, problem) if problem else Row(where, dict(zip(columns, fields, strict=True)))


def _header(lines: Sequence[str], width: Callable[[Sequence[str]], int]) -> int:
    """Where the header is: the first line that is no comment, unless a line with `#` before it has as many columns.

    Args:
      width: the columns of the first of some lines.
    """
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), 0)
    return next((number for number in range(start) if width(lines[number : number + 1]) >= width(lines[start:])), start)


def _quotes_fields(place: Place, lines: Sequence[str]) -> bool:
    """Whether the fields of a .tsv file are quoted.

    They are if all of the header or all of a column is, if all that hold a quote are and double it, or if only this
    makes all rows as wide as the header.
    """
    if not lines:
        return False
    header, *rows = (line.rstrip("\r\n").split("\t") for line in lines)
    if all(QUOTED.fullmatch(name) for name in header):
        return True
    is_ragged = len(header) > 1 and any(len(row) != len(header) for row in rows if row != [""])
    if is_ragged and _fit(place, lines, Delimiter.TAB) == (1.0, len(header)):
        return True
    rows = [row for row in rows if len(row) == len(header)]
    columns = [[QUOTED.fullmatch(value) is not None for value in column] for column in zip(*rows, strict=True)]
    if len(rows) > 1 and any(all(column) for column in columns):
        return True
    with_quotes = [value for row in rows for value in row if '"' in value]
    return any('""' in value[1:-1] for value in with_quotes) and all(map(QUOTED.fullmatch, with_quotes))


def csv_records(
    place: Place, lines: Iterable[str], delimiter: Delimiter, *, start: int = 0, blanks: bool = False
) -> Records:
    """The records of some lines.

    Args:
      start: how many lines of the file come before them.
      blanks: whether blanks before a quote are left out.

    Raises:
      UserError: a quote is not closed up to the end, or a field is too long.
    """
    reader = csv.reader(lines, delimiter=CHARACTERS[delimiter], strict=True, skipinitialspace=blanks)
    while True:
        number = reader.line_num + 1
        where = f"{place}:{start + number}"
        try:
            record: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise UserError(
                    f"{where}: expected a closing quote, found none up to the end of the file, so the "
                    f"rows after it cannot be separated; close the quote, or double it if it belongs to the text"
                ) from None
            if "field limit" in str(error):
                raise UserError(
                    f"{where}: expected fields of at most {LONGEST_LINE:,} characters, found a longer "
                    f"one; look for a quote that is not closed"
                ) from None
            record = f"expected quotes around whole fields, found {error}"
            if reader.line_num > number:
                record += f" in line {start + reader.line_num}: the row goes on to there, as a quote was not closed"
        yield where, record


def _delimiter_of(place: Place, lines: Sequence[str]) -> Delimiter:
    """The one that splits the header, and most of the rows into as many columns; the comma where none does."""
    fits = {delimiter: fit for delimiter in CHARACTERS if (fit := _fit(place, lines, delimiter))[1] > 1}
    best = [delimiter for delimiter, fit in fits.items() if fit == max(fits.values())]
    if len(best) > 1:
        names = [delimiter.value for delimiter in best]
        raise UserError(
            f"{place}:1: expected one character between the columns, found that {' and '.join(names)} fit the first "
            f"lines equally well; name it: --delimiter {names[0]} (train: --data.delimiter {names[0]})"
        )
    return best[0] if best else Delimiter.COMMA


def _fit(place: Place, lines: Sequence[str], delimiter: Delimiter, *, blanks: bool = False) -> tuple[float, int]:
    """The share of the first rows that are as wide as the header, and that width."""
    header, *rows = _first_records(place, lines, delimiter, blanks=blanks) or [[]]
    rows = [row for row in rows if row]
    return sum(len(row) == len(header) for row in rows) / max(len(rows), 1), len(header)


def _first_records(
    place: Place, lines: Sequence[str], delimiter: Delimiter, *, blanks: bool = False
) -> list[list[str]]:
    """The fields of the first records; those of a record that cannot be read are one empty field."""
    records = []
    # A quote that seems open ends them: another delimiter may close it, else reading the rows fails.
    with contextlib.suppress(UserError):
        for _, record in itertools.islice(csv_records(place, lines, delimiter, blanks=blanks), DELIMITER_RECORDS):
            records.append(record if isinstance(record, list) else [""])
    return records


def _blanks_before_quotes(place: Place, lines: Sequence[str], delimiter: Delimiter) -> bool:
    """Whether quoted fields have blanks before them (`a, "b"`), which some programs write."""
    before = re.compile(rf'(?:^|{re.escape(CHARACTERS[delimiter])}) +"(?!")')
    seen = any(re.match(r' +"', field) for record in _first_records(place, lines, delimiter) for field in record)
    if not seen or not any(map(before.search, lines)):
        return False
    return _fit(place, lines, delimiter, blanks=True) >= _fit(place, lines, delimiter)


class Swallowed:
    """Finds rows that hold other rows, because a quote at the beginning of a text and a later one enclose them."""

    def __init__(self, delimiter: str, first: Sequence[Sequence[str]]) -> None:
        """`first` are the fields of some rows of the file."""
        self._delimiter = delimiter
        rows = [row for row in first if not any(map(LINE_END.search, row))]
        self._longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
        values = [{value.strip() for value in column} for column in zip(*rows, strict=True)]
        self._known = [found if len(found) <= min(FEW_VALUES, len(rows) // 2) else None for found in values]
        self._reports = len(first) - len(rows) <= max(1, FEW_ROWS * len(first))

    def problem(self, where: str, fields: Sequence[str]) -> str:
        """What is wrong with a row of these fields; empty where each of them is one value.

        In a single column, the number of lines is all there is to see: the first text of many is reported.
        """
        if not any(map(LINE_END.search, fields)):
            return ""
        lines = [line for line in LINE_END.split(self._delimiter.join(fields)) if line.strip()]
        longest = max(map(len, fields))
        if len(fields) == 1:
            if self._reports and len(lines) > MANY_LINES:
                self._reports = False
                say_once(
                    f"{where}: the text has {len(lines)} lines ({longest:,} characters), while nearly all of the first "
                    "rows have one; look for a quote that does not belong there"
                )
            return ""
        # Without its quotes, such a row is several that all look like the others.
        alike = sum(self._is_row(line.split(self._delimiter)) for line in lines)
        few = 2 if any(known is not None for known in self._known) else 4
        if len(lines) < few or alike < 0.9 * len(lines):
            return ""
        return (
            f"expected one row, found a field of {len(lines)} lines ({longest:,} characters) that look like rows "
            "of their own; look for a quote that does not belong there, or double it"
        )

    def _is_row(self, values: Sequence[str]) -> bool:
        return len(values) == len(self._longest) and all(
            len(value) <= 2 * longest if known is None else value.strip() in known
            for value, longest, known in zip(values, self._longest, self._known, strict=True)
        )
