"""Readers of files as tables: .tsv, .csv, .jsonl, .json and .txt (plain or compressed), .parquet and ArrayRecord.

    with open_table("texts.csv.gz") as table:
        table.columns                       # known from the first lines
        table.head(("text", "label"))       # the first rows, to look at
        for row in table.rows(("text",)):   # every row, read as it is asked for
            ...                             # a Row, or Unreadable with the reason

A file is opened once and read once: what has to be known first (columns, delimiter, kinds of values) is found in the
first rows, which are kept and come again from `rows`. So a table of a stream (all but .parquet and ArrayRecord) gives
its rows once. Memory holds the first rows and a buffer, however large the file is, and all of a list in a .json file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fastbert_jax.config import AUTO_ENCODING, COMPRESSED_ENDINGS, Delimiter
from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.log import say_once
from fastbert_jax.text.delimited import CHARACTERS, csv_table, tsv_table
from fastbert_jax.text.examples import Unreadable
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
from fastbert_jax.text.lines import (
    HEAD_CHARACTERS,
    HEAD_ROWS,
    LONGEST_LINE,
    SNIFFED,
    foreign,
    head_of,
    numbered,
    whole_lines,
)
from fastbert_jax.text.parquet import open_parquet
from fastbert_jax.text.tables import Row, Rows, Table, row_size

TEXTS = (
    "text sentence text_a texta text1 sentence1 sentence_1 sentence_a premise question1 question query review "
    "review_body content document article body description comment tweet message utterance headline title"
).split()
"""Usual names of columns of texts, the first choice first."""
NAME = re.compile(r"\w[\w .:/-]{0,39}")
"""A name of a column, in a file whose name does not say that it has columns."""
BATCH_ROWS = 1024
"""Records of an ArrayRecord file that are read together."""
# `a.arrayrecord`, and how TFDS and others name the shards of one set: `a.array_record-00000-of-00004`.
ARRAY_RECORD = re.compile(r"\.array_?record(-\d+-of-\d+)?$", re.IGNORECASE)


@contextlib.contextmanager
def open_table(
    name: str | Path, *, delimiter: Delimiter = Delimiter.AUTO, encoding: str = AUTO_ENCODING
) -> Iterator[Table]:
    """Open a file by its ending, local or behind a `scheme://` that fsspec knows.

    Args:
      delimiter: the character between the columns of a .csv file.
      encoding: of a text file.

    Raises:
      UserError: no such file, an ending without a reader, a header that is missing or cannot be read, or (also from
        `rows`) a file that is damaged, or neither of the encoding nor of the kind that its name shows.
    """
    place = place_of(name)
    ending = ".arrayrecord" if ARRAY_RECORD.search(str(place)) else without_compression(place).suffix.lower()
    known = (*TEXT_FORMATS, ".parquet", ".arrayrecord")
    size_of(place)  # says what is wrong where there is no file
    if ending not in known or (ending == ".parquet" and codec_of(place)):
        endings = f"{', '.join(known)}, or {' or '.join(COMPRESSED_ENDINGS)} after a text file's ending"
        raise UserError(f"expected a file ending in {endings}, found {str(place)!r}")
    if ending == ".arrayrecord":
        with local_copy(place) as path:
            yield _array_record(place, path)
        return
    with open_bytes(place) as stream:
        if ending == ".parquet":
            yield open_parquet(place, stream)
        else:
            newline, markup = "" if ending == ".csv" else "\n", ending == ".txt"
            lines = whole_lines(stream, place, newline=newline, encoding=encoding, markup=markup)
            yield TEXT_FORMATS[ending](place, lines, delimiter)


def open_lines(stream: BinaryIO, name: Place, *, encoding: str = AUTO_ENCODING) -> Table:
    """A stream of one text a line, in the column `text`; an empty line is an empty text.

    A stream of JSON objects, or of a table that names a column of texts, is read as such.
    """
    return _open_txt(name, whole_lines(stream, name, newline="\n", encoding=encoding), Delimiter.AUTO)


def _open_txt(place: Place, lines: Iterator[str], delimiter: Delimiter) -> Table:
    first, lines = head_of(lines, len)
    texts = [line for line in first if line.strip()]
    if texts and all(line.lstrip().startswith("{") and isinstance(_json_row("", line), Row) for line in texts):
        return _json_lines(place, f"{place} (JSON objects)", lines)
    if kind := _columns_in_lines(texts):
        table = csv_table(place, lines, kind) if kind is not Delimiter.TAB else tsv_table(place, lines)
        return dataclasses.replace(table, name=f"{place} ({kind.value}s between its columns)")
    header = texts[0].strip() if texts else ""
    if header.lower() in TEXTS:
        say_once(
            f"{place}: each line is a text, the first one {header!r} too; if that is the name of a column, remove it"
        )
    tabs = {line.count("\t") for line in texts}
    if len(texts) > 1 and len(tabs) == 1 and tabs != {0}:
        say_once(
            f"{place}: each line is a text, with the tabs in it; to read columns, let the first line name them, "
            "with the text in 'text', and the file's name end in .tsv"
        )
    return _texts(str(place), numbered(lines, place), is_lines=True)


def _columns_in_lines(texts: Sequence[str]) -> Delimiter | None:
    """What is between the columns of some lines, if the first one names them, a column of texts among them."""
    for kind, character in CHARACTERS.items():
        names = [name.strip().strip('"') for name in texts[0].lower().split(character)] if texts else []
        fits = sum(line.count(character) >= len(names) - 1 for line in texts)
        named = len(names) > 1 and set(names) & set(TEXTS) and all(map(NAME.fullmatch, names))
        if named and fits >= 0.9 * len(texts):
            return kind
    return None


def _texts(name: str, records: Iterator[tuple[str, str]], *, is_lines: bool = False) -> Table:
    """A table of texts with their places."""
    rows: Rows = (Row(where, {"text": text}) for where, text in records)
    return Table(name, ("text",), lambda columns: rows, text_columns=("text",), is_lines=is_lines)


def _open_json(place: Place, lines: Iterator[str], delimiter: Delimiter) -> Table:
    """A file of a list of JSON objects, which is held in memory, or of one object a line."""
    first, lines = head_of(lines, len)
    if not "".join(first).lstrip().startswith("["):
        return _json_lines(place, str(place), lines)
    as_lines = "write one object a line into a .jsonl file: jq -c '.[]'"
    size, content = 0, []
    for line in lines:
        size += len(line)
        content.append(line)
        if size > LONGEST_LINE:
            raise UserError(f"{place}: expected at most {LONGEST_LINE:,} characters, found more; {as_lines}")
    try:
        items = json.loads("".join(content))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: expected a list of JSON objects, found {error}; {as_lines}") from None
    rows = (
        Row(f"{place}[{number}]", item)
        if isinstance(item, dict)
        else Unreadable(f"{place}[{number}]", f"expected a JSON object, found {str(item)[:40]!r}")
        for number, item in enumerate(items)
    )
    return _keyed_table(place, f"{place} (a list)", rows)


def _json_lines(place: Place, name: str, lines: Iterator[str]) -> Table:
    """A file of one JSON object a line."""
    rows = (_json_row(where, line) for where, line in numbered(lines, place) if line.strip())
    return _keyed_table(place, name, rows)


def _keyed_table(place: Place, name: str, rows: Rows) -> Table:
    """A table of JSON objects, whose columns are the keys of the first ones."""
    first, rows = head_of(rows, row_size)
    keys: dict[str, bool] = {}
    for row in first:
        for key, value in row.values.items() if isinstance(row, Row) else ():
            keys[key] = keys.get(key, False) or isinstance(value, str)
    if not keys:  # the first bad line says what is wrong
        bad = next(iter(first), None)
        found = f"{bad.where}: {bad.problem}" if isinstance(bad, Unreadable) else f"{place}: found no objects"
        raise UserError(
            f'{found}; a .jsonl file holds one JSON object a line, such as {{"text": ..., "label": ...}}, and a .json '
            "file may hold a list of them"
        )
    texts = tuple(key for key, holds_text in keys.items() if holds_text)
    if len(first) == HEAD_ROWS or sum(map(row_size, first)) >= HEAD_CHARACTERS:
        name += f" (by its first {len(first):,} rows)"
    return Table(name, tuple(keys), lambda wanted: rows, text_columns=texts, first_rows=first)


def _json_row(where: str, text: str) -> Row | Unreadable:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(where, f"expected a JSON object, found {error}")
    if isinstance(value, dict):
        return Row(where, value)
    return Unreadable(where, f"expected a JSON object, found {text.lstrip()[:40].rstrip()!r}")


def _array_record(place: Place, path: Path) -> Table:
    """A file of one UTF-8 text a record (the column `text`), or of one JSON object; the first record decides."""
    with needs_extra("train", str(place)):
        from array_record.python.array_record_module import ArrayRecordReader

    with open(path, "rb") as stream:
        if problem := foreign(stream.read(SNIFFED)):
            raise UserError(f"{place}: expected an ArrayRecord file, found {problem}")
    reader = ArrayRecordReader(str(path))
    # A file that is cut short opens without an error, and holds no records.
    if not reader.ok():
        raise UserError(f"{place}: expected an ArrayRecord file, found one that is cut short; copy it again")
    count = reader.num_records()
    if not count:
        raise UserError(f"{place}: expected records, found none")

    def records() -> Iterator[tuple[str, str]]:
        with reading(place, "an ArrayRecord", (OSError, RuntimeError)):
            for start in range(0, count, BATCH_ROWS):
                batch = reader.read(start, min(start + BATCH_ROWS, count))
                for number, record in enumerate(batch, start=start + 1):
                    yield f"{place}:{number}", record.decode("utf-8", "surrogateescape")

    first, texts = next(records()), records()
    if isinstance(_json_row(*first), Row):
        table = _keyed_table(place, f"{place} (a JSON object in each record)", itertools.starmap(_json_row, texts))
    else:
        table = _texts(f"{place} (a text in each record)", texts)
    return dataclasses.replace(table, row_count=count)


TEXT_FORMATS: dict[str, Callable[[Place, Iterator[str], Delimiter], Table]] = {
    ".tsv": lambda place, lines, delimiter: tsv_table(place, lines),
    ".csv": csv_table,
    ".jsonl": lambda place, lines, delimiter: _json_lines(place, str(place), lines),
    ".json": _open_json,
    ".txt": _open_txt,
}
"""The readers of text files by their endings; these files may be compressed."""
