"""Readers of files as tables: .tsv, .csv, .jsonl and .txt (plain or compressed), .parquet and ArrayRecord.

    with open_table("texts.csv.gz") as table:
        table.columns                       # known from the first lines
        table.head(("text", "label"))       # the first rows, to look at
        for row in table.rows(("text",)):   # every row, read as it is asked for
            ...                             # a Row, or Unreadable with the reason

A file is opened once and read once: what has to be known first (columns, delimiter, kinds of values) is found in the
first rows, which are kept and come again from `rows`. So a table of a stream (all but .parquet and ArrayRecord) gives
its rows once. Memory holds the first rows and a buffer, however large the file is.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fastbert_jax.config import COMPRESSED_ENDINGS, Delimiter
from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.examples import Unreadable, text_problem
from fastbert_jax.text.filesystem import (
    Place,
    codec_of,
    local_copy,
    open_bytes,
    place_of,
    reading,
    size_of,
    without_compression,
)

HEAD_ROWS = 1000
"""Rows at the beginning that may be looked at before reading."""
HEAD_CHARACTERS = 2**22
"""The head ends with the row that reaches so many characters."""
LONGEST_LINE = 2**28
"""Characters of a line: room for any text, but a small file may not unpack to an endless one."""
NOT_UTF8 = ("\udcff\udcfe", "\udcfe\udcff", "\x1f\udc8b", "(\udcb5/\udcfd")
"""How files of UTF-16, gzip and zstd begin when they are decoded as UTF-8 with `surrogateescape`."""
DELIMITERS = {Delimiter.COMMA: ",", Delimiter.SEMICOLON: ";", Delimiter.TAB: "\t", Delimiter.PIPE: "|"}
DELIMITER_RECORDS = 50
"""Records that are looked at to find the delimiter."""
BATCH_ROWS = 1024
"""Rows of Parquet and ArrayRecord files that are read together."""
# Parquet is read in pieces of so many bytes, not by whole row groups, which may be larger than memory.
PARQUET_BUFFER = 2**20
# `a.arrayrecord`, and how TFDS and others name the shards of one set: `a.array_record-00000-of-00004`.
ARRAY_RECORD = re.compile(r"\.array_?record(-\d+-of-\d+)?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The values of a row by column; a missing value is None or absent."""

    where: str
    """The place of the row, such as `train.tsv:17`."""
    values: Mapping[str, Any]


Item = TypeVar("Item")
Rows = Iterator[Row | Unreadable]
Records = Iterator[tuple[str, list[str] | str]]
"""(place, fields or what is wrong) of each record of a text file."""


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

    def head(self, columns: Sequence[str]) -> list[Row | Unreadable]:
        """The first rows, up to `HEAD_ROWS`; `rows` gives them again."""
        if self.first_rows is not None:
            return list(self.first_rows)
        return list(itertools.islice(self.rows(columns), HEAD_ROWS))


@contextlib.contextmanager
def open_table(name: str | Path, *, delimiter: Delimiter = Delimiter.AUTO) -> Iterator[Table]:
    """Open a file by its ending, local or behind a `scheme://` that fsspec knows.

    Args:
      delimiter: the character between the columns of a .csv file.

    Raises:
      UserError: no such file, an ending without a reader, a header that is missing or cannot be read, or (also from
        `rows`) a file that is damaged, or neither UTF-8 nor of the compression that its name shows.
    """
    place = place_of(name)
    ending = ".arrayrecord" if ARRAY_RECORD.search(str(place)) else without_compression(place).suffix.lower()
    if ending not in (*FORMATS, ".arrayrecord"):
        endings = f"{', '.join(FORMATS)}, .arrayrecord, or {' or '.join(COMPRESSED_ENDINGS)} after a text file's ending"
        raise UserError(f"expected a file ending in {endings}, found {str(place)!r}")
    if ending == ".parquet" and codec_of(place):
        raise UserError(
            f"{place}: expected a Parquet file as it is (it compresses its own content), found {Path(place).suffix}"
        )
    size_of(place)  # says what is wrong where there is no file
    if ending == ".arrayrecord":
        with local_copy(place) as path:
            yield _array_record(place, path)
    else:
        with open_bytes(place) as stream:
            yield FORMATS[ending](place, stream, delimiter)


def open_lines(stream: BinaryIO, name: Place) -> Table:
    """A stream of one text a line as a table with the column `text`; an empty line is an empty text."""
    return _texts(str(name), _numbered(stream, name))


def _texts(name: str, records: Iterator[tuple[str, str]]) -> Table:
    """A table of texts with their places."""
    rows: Rows = (Row(where, {"text": text}) for where, text in records)
    return Table(name, ("text",), lambda columns: rows, text_columns=("text",))


def _numbered(stream: BinaryIO, name: Place) -> Iterator[tuple[str, str]]:
    r"""The place of each line, and the line without its ending (\n or \r\n)."""
    for number, line in enumerate(_whole_lines(stream, name, newline="\n"), start=1):
        yield f"{name}:{number}", line[:-1].removesuffix("\r") if line.endswith("\n") else line


def _whole_lines(stream: BinaryIO, name: Place, *, newline: str) -> Iterator[str]:
    """Lines with their endings; bytes that are not UTF-8 become lone surrogates.

    Args:
      name: the stream in errors.
      newline: the only character that ends a line; empty: any of Python's line endings.

    Raises:
      UserError: a line is longer than `LONGEST_LINE`, or the stream cannot be read.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
    try:
        with reading(name):
            for number, line in enumerate(iter(functools.partial(text.readline, LONGEST_LINE + 1), ""), start=1):
                if number == 1 and line.startswith(NOT_UTF8):
                    raise UserError(
                        f"{name}: expected UTF-8, found UTF-16 or compressed bytes; save the file again as UTF-8, or "
                        f"let its name end in {' or '.join(COMPRESSED_ENDINGS)}"
                    )
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{name}:{number}: expected lines of at most {LONGEST_LINE:,} characters, found a longer one; "
                        "cut it into texts, one a line"
                    )
                yield line
    finally:
        with contextlib.suppress(ValueError):  # the stream is closed already
            text.detach()  # else it is closed with the wrapper


def _head(items: Iterator[Item], size: Callable[[Item], int]) -> tuple[list[Item], Iterator[Item]]:
    """The first items of a stream, and all of them, the first ones again."""
    head: list[Item] = []
    room = HEAD_CHARACTERS
    for item in itertools.islice(items, HEAD_ROWS):
        head.append(item)
        room -= size(item)
        if room <= 0:
            break
    return head, itertools.chain(head, items)


def _size(row: Row | Unreadable) -> int:
    return sum(len(str(value)) for value in row.values.values()) if isinstance(row, Row) else 0


def _open_tsv(place: Place, stream: BinaryIO, delimiter: Delimiter) -> Table:
    """A file of lines with tabs between the columns; quotes are characters like any other."""
    return _with_header(place, str(place), ((where, line.split("\t")) for where, line in _numbered(stream, place)))


def _open_csv(place: Place, stream: BinaryIO, delimiter: Delimiter) -> Table:
    """A file of records whose fields may be quoted, and may then hold line breaks."""
    csv.field_size_limit(LONGEST_LINE)
    first, lines = _head(_whole_lines(stream, place, newline=""), len)
    if delimiter is Delimiter.AUTO:
        delimiter = _delimiter_of(place, first)
    name = str(place) if delimiter is Delimiter.COMMA else f"{place} ({delimiter.value}s between its columns)"
    return _with_header(place, name, _csv_records(place, lines, delimiter))


def _csv_records(place: Place, lines: Iterable[str], delimiter: Delimiter) -> Records:
    reader = csv.reader(lines, delimiter=DELIMITERS[delimiter], strict=True)
    while True:
        where = f"{place}:{reader.line_num + 1}"
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
        yield where, record


def _delimiter_of(place: Place, lines: Sequence[str]) -> Delimiter:
    """The one that splits the header, and most of the rows into as many columns; the comma where none does."""
    fits: dict[Delimiter, tuple[float, int]] = {}
    for delimiter in DELIMITERS:
        records = []
        # A quote that seems open ends them: another delimiter may close it, else reading the rows fails.
        with contextlib.suppress(UserError):
            for _, record in itertools.islice(_csv_records(place, lines, delimiter), DELIMITER_RECORDS):
                records.append(record if isinstance(record, list) else [""])
        header, *rows = records or [[]]
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


def _with_header(place: Place, name: str, records: Records) -> Table:
    """A table whose first record holds the names of the columns."""
    where, header = next(records, (f"{place}:1", []))
    if isinstance(header, str):
        raise UserError(f"{where}: expected a line with the names of the columns: {header}; fix the line")
    if not header:
        raise UserError(f"{where}: expected a line with the names of the columns, found none; add one")
    columns = tuple(column.strip() for column in header)
    for column in columns:
        if problem := text_problem(column):
            found = problem.replace("of the text", "of a column's name")
            raise UserError(f"{where}: {found}; save the file again as UTF-8")
        if column and columns.count(column) > 1:
            raise UserError(f"{where}: expected each column once, found {column!r} twice; rename one")
    return _stream_table(name, _delimited_rows(columns, records), columns=columns, text_columns=columns)


def _delimited_rows(columns: tuple[str, ...], records: Records) -> Rows:
    for where, fields in records:
        if isinstance(fields, str):
            yield Unreadable(where, fields)
        elif len(fields) == len(columns):
            yield Row(where, dict(zip(columns, fields, strict=True)))
        elif fields not in ([], [""]):  # an empty line holds no row, unless the only column is a text
            yield Unreadable(where, f"expected {len(columns)} columns, found {len(fields)}")


def _open_jsonl(place: Place, stream: BinaryIO, delimiter: Delimiter) -> Table:
    """A file of one JSON object a line; its columns are the keys of the first ones."""
    lines = ((where, line) for where, line in _numbered(stream, place) if line.strip())
    table = _stream_table(str(place), itertools.starmap(_json_row, lines))
    if not table.columns:  # the first bad line says what is wrong
        first = next(iter(table.first_rows or ()), None)
        found = f"{first.where}: {first.problem}" if isinstance(first, Unreadable) else f"{place}: found no objects"
        raise UserError(f'{found}; a .jsonl file holds one JSON object a line, such as {{"text": ..., "label": ...}}')
    return table


def _json_row(where: str, text: str) -> Row | Unreadable:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(where, f"expected a JSON object, found {error}")
    if isinstance(value, dict):
        return Row(where, value)
    return Unreadable(where, f"expected a JSON object, found {text.lstrip()[:40].rstrip()!r}")


def _stream_table(
    name: str, rows: Rows, *, columns: tuple[str, ...] | None = None, text_columns: tuple[str, ...] = ()
) -> Table:
    """A table of rows that can be read once; without `columns`, they are the keys of its first rows."""
    first, rows = _head(rows, _size)
    if columns is None:
        columns, text_columns = _keys(first)
    return Table(name, columns, lambda wanted: rows, text_columns=text_columns, first_rows=first)


def _keys(rows: Iterable[Row | Unreadable]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys of JSON objects, and those of them that hold a text in some object."""
    keys: dict[str, bool] = {}
    for row in rows:
        for key, value in row.values.items() if isinstance(row, Row) else ():
            keys[key] = keys.get(key, False) or isinstance(value, str)
    return tuple(keys), tuple(key for key, holds_text in keys.items() if holds_text)


def _open_parquet(place: Place, stream: BinaryIO, delimiter: Delimiter) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    @contextlib.contextmanager
    def whole() -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{place}: expected a Parquet file, found a damaged one ({str(error).strip()}); copy it again"
            ) from None

    with whole():
        file = pq.ParquetFile(stream, buffer_size=PARQUET_BUFFER, pre_buffer=False)

    def rows(columns: Sequence[str]) -> Rows:
        number = 0
        with whole():
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                for values in zip(*(_parquet_values(batch.column(name)) for name in columns), strict=True):
                    number += 1
                    yield Row(f"{place}:{number}", dict(zip(columns, values, strict=True)))

    schema = file.schema_arrow
    texts = tuple(column.name for column in schema if _is_text(column.type))
    return Table(str(place), tuple(schema.names), rows, text_columns=texts, row_count=file.metadata.num_rows)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _parquet_values(column: Any) -> list[Any]:
    """The values of a column; bytes, and strings that are not UTF-8, as `surrogateescape` text."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary()).to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def _array_record(place: Place, path: Path) -> Table:
    """A file of one UTF-8 text a record (the column `text`), or of one JSON object; the first record decides."""
    with needs_extra("train", str(place)):
        from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    # A file that is cut short opens without an error, and holds no records.
    if not reader.ok():
        raise UserError(f"{place}: expected an ArrayRecord file, found one that is cut short; copy it again")
    count = reader.num_records()
    if not count:
        raise UserError(f"{place}: expected records, found none")

    def records() -> Iterator[tuple[str, str]]:
        try:
            for start in range(0, count, BATCH_ROWS):
                batch = reader.read(start, min(start + BATCH_ROWS, count))
                for number, record in enumerate(batch, start=start + 1):
                    yield f"{place}:{number}", record.decode("utf-8", "surrogateescape")
        except RuntimeError as error:
            found = str(error).split(";")[0]
            raise UserError(
                f"{place}: expected an ArrayRecord file, found a damaged one ({found}); copy it again"
            ) from None

    first, texts = next(records()), records()
    if isinstance(_json_row(*first), Row):
        table = _stream_table(f"{place} (a JSON object in each record)", itertools.starmap(_json_row, texts))
    else:
        table = _texts(f"{place} (a text in each record)", texts)
    return dataclasses.replace(table, row_count=count)


FORMATS: dict[str, Callable[[Place, BinaryIO, Delimiter], Table]] = {
    ".tsv": _open_tsv,
    ".csv": _open_csv,
    ".jsonl": _open_jsonl,
    ".parquet": _open_parquet,
    ".txt": lambda place, stream, delimiter: open_lines(stream, place),
}
"""The readers of files by their endings; all but Parquet may be compressed."""
