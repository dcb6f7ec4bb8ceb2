"""Records of .csv and .tsv files: the character between the columns, quotes, and rows that a stray quote swallows."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fastbert_jax.config import Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.filesystem import Place
from fastbert_jax.text.lines import LONGEST_LINE, head_of, numbered

Records = Iterator[tuple[str, list[str] | str]]
"""(place, fields or what is wrong) of each record of a text file."""


@dataclasses.dataclass(frozen=True)
class Delimited:
    """A file of records, the first of which holds the names of the columns."""

    name: str
    """For messages; with what is between the columns unless the file's ending says it."""
    character: str
    """What is between the columns."""
    records: Records


CHARACTERS = {Delimiter.COMMA: ",", Delimiter.SEMICOLON: ";", Delimiter.TAB: "\t", Delimiter.PIPE: "|"}
DELIMITER_RECORDS = 50
"""Records that are looked at to find the delimiter."""
EXCEL_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line of Excel that names the delimiter."""
LINE_END = re.compile(r"\r\n|\r|\n")
QUOTED = re.compile(r'"([^"]|"")*"')
MANY_LINES, FEW_ROWS = 5, 0.01
"""The longest text of a single column is reported if it has more lines than this, and at most this share of the rows
has several."""
FEW_VALUES = 50
"""A column of at most so many values, in twice as many rows, has no other value in a row that a quote swallowed."""


def csv_table(place: Place, lines: Iterator[str], delimiter: Delimiter) -> Delimited:
    """The records of a .csv file; quoted fields may hold line breaks.

    Raises:
      UserError: two delimiters fit equally well.
    """
    csv.field_size_limit(LONGEST_LINE)
    first, lines = head_of(lines, len)
    if excel := EXCEL_LINE.fullmatch(first[0]) if first else None:
        named = [delimiter for delimiter, character in CHARACTERS.items() if character == excel[1]]
        delimiter = named[0] if named and delimiter is Delimiter.AUTO else delimiter
    start = 1 if excel else _comments(first)
    if delimiter is Delimiter.AUTO:
        delimiter = _delimiter_of(place, first[start:] or first)
    if not excel:
        start = _header(first, start, lambda lines: len((_first_records(place, lines, delimiter) or [[]])[0]))
    blanks = _blanks_before_quotes(place, first[start:], delimiter)
    name = str(place) if delimiter is Delimiter.COMMA else f"{place} ({delimiter.value}s between its columns)"
    rest = itertools.islice(lines, start, None)
    return Delimited(name, CHARACTERS[delimiter], csv_records(place, rest, delimiter, start=start, blanks=blanks))


def tsv_table(place: Place, lines: Iterator[str]) -> Delimited:
    """The records of a .tsv file; quotes are characters like any other, unless the first lines are quoted."""
    first, lines = head_of(lines, len)
    if first and EXCEL_LINE.fullmatch(first[0]):
        return csv_table(place, lines, Delimiter.AUTO)
    if _quotes_fields(place, first):
        table = csv_table(place, lines, Delimiter.TAB)
        return dataclasses.replace(table, name=f"{place} (with quoted columns)")
    start = _header(first, _comments(first), lambda lines: lines[0].count("\t"))
    records = ((where, line.split("\t")) for where, line in numbered(lines, place))
    return Delimited(str(place), "\t", itertools.islice(records, start, None))


def _comments(lines: Sequence[str]) -> int:
    """How many lines at the beginning are comments."""
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _header(lines: Sequence[str], start: int, width: Callable[[Sequence[str]], int]) -> int:
    """Where the header is: at `start`, unless a line with `#` before that has as many columns.

    Args:
      width: the columns of the first of some lines.
    """
    if start == len(lines):
        return 0
    columns = width(lines[start:])
    return next((number for number in range(start) if width(lines[number : number + 1]) >= columns), start)


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
    records = _first_records(place, lines, Delimiter.TAB)
    is_ragged = len(header) > 1 and any(len(row) != len(header) for row in rows if row != [""])
    if is_ragged and len(records) > 1 and all(len(record) == len(header) for record in records if record):
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
    fits: dict[Delimiter, tuple[float, int]] = {}
    for delimiter in CHARACTERS:
        header, *rows = _first_records(place, lines, delimiter) or [[]]
        rows = [row for row in rows if row]
        if len(header) > 1:
            fits[delimiter] = sum(len(row) == len(header) for row in rows) / max(len(rows), 1), len(header)
    if not fits:
        return Delimiter.COMMA
    best = [delimiter for delimiter in fits if fits[delimiter] == max(fits.values())]
    if len(best) > 1:
        names = [delimiter.value for delimiter in best]
        raise UserError(
            f"{place}:1: expected one character between the columns, found that {' and '.join(names)} fit the first "
            f"lines equally well; name it: --delimiter {names[0]} (train: --data.delimiter {names[0]})"
        )
    return best[0]


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
    plain = _first_records(place, lines, delimiter)
    before = re.compile(rf'(?:^|{re.escape(CHARACTERS[delimiter])}) +"(?!")')
    seen = any(re.match(r' +"', field) for record in plain for field in record)
    if not seen or not any(map(before.search, lines)):
        return False
    width = len(plain[0])
    counts = [
        sum(len(record) == width for record in records)
        for records in (plain, _first_records(place, lines, delimiter, blanks=True))
    ]
    return counts[1] >= counts[0]


class Swallowed:
    """Finds rows that hold other rows, because a quote at the beginning of a text and a later one enclose them."""

    def __init__(self, columns: Sequence[str], delimiter: str, first: Iterable[Mapping[str, str]]) -> None:
        """`first` are some rows of the file."""
        self._delimiter = delimiter
        rows = [[row[name] for name in columns] for row in first if not any(map(LINE_END.search, row.values()))]
        self._longest = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
        values = [{value.strip() for value in column} for column in zip(*rows, strict=True)]
        self._known = [found if len(found) <= min(FEW_VALUES, len(rows) // 2) else None for found in values]
        self._rows = self._rows_of_lines = self._most_lines = 0
        self._told = ""

    def problem(self, where: str, fields: Sequence[str]) -> str:
        """What is wrong with a row of these fields; empty where each of them is one value."""
        self._rows += 1
        if not any(map(LINE_END.search, fields)):
            return ""
        if len(fields) == 1:
            self._count(where, fields[0])
            return ""
        # Without its quotes, such a row is several that all look like the others.
        lines = [line for line in LINE_END.split(self._delimiter.join(fields)) if line.strip()]
        alike = sum(self._is_row(line.split(self._delimiter)) for line in lines)
        few = 2 if any(known is not None for known in self._known) else 4
        if len(lines) < few or alike < 0.9 * len(lines):
            return ""
        longest = max(fields, key=len)
        return (
            f"expected one row, found a field of {len(lines)} lines ({len(longest):,} characters) that look like rows "
            "of their own; look for a quote that does not belong there, or double it"
        )

    def tell_longest(self) -> None:
        """Print which row of a single column has many lines, if hardly any other has several: its length is all there
        is to see.
        """
        if self._most_lines > MANY_LINES and self._rows_of_lines <= max(1, FEW_ROWS * self._rows):
            say_once(f"{self._told}, while nearly all others have one; look for a quote that does not belong there")

    def _count(self, where: str, text: str) -> None:
        lines = len(LINE_END.findall(text)) + 1
        self._rows_of_lines += 1
        if lines > self._most_lines:
            self._most_lines = lines
            self._told = f"{where}: the text has {lines} lines ({len(text):,} characters)"

    def _is_row(self, values: Sequence[str]) -> bool:
        return len(values) == len(self._longest) and all(
            len(value) <= 2 * longest if known is None else value.strip() in known
            for value, longest, known in zip(values, self._longest, self._known, strict=True)
        )
