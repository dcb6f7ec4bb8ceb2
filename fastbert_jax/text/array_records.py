"""Reader of ArrayRecord files whose records are texts, or JSON objects with a text in them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastbert_jax.errors import UserError, needs_extra
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.filesystem import Place, local_copy
from fastbert_jax.text.tables import Row, Table

# `a.arrayrecord`, and how TFDS and others name the shards of one set: `a.array_record-00000-of-00004`.
ENDING = re.compile(r"\.array_?record(-\d+-of-\d+)?$", re.IGNORECASE)
# Records read at once.
CHUNK = 1024
# Keys of a JSON object may differ from record to record; this many are looked at to know the columns.
RECORDS_TO_LOOK_AT = 100


def is_array_record(name: str | Path) -> bool:
    """Whether a file's name is that of an ArrayRecord file."""
    return ENDING.search(str(name)) is not None


def open_array_record(place: Place) -> Table:
    """Open a file of one UTF-8 text a record (the column `text`), or one JSON object; the first record decides.

    Raises:
      UserError: from here or from `rows`: a file that is damaged, cut short or empty.
    """
    some = list(itertools.islice(_records(place), RECORDS_TO_LOOK_AT))
    if not some:
        raise UserError(f"{place}: expected records, found none")
    if not isinstance(_json(some[0]), dict):
        return Table(f"{place} (a text in each record)", ("text",), _text_rows(place), text_columns=("text",))
    columns: dict[str, bool] = {}
    for value in map(_json, some):
        for key, held in value.items() if isinstance(value, dict) else ():
            columns[key] = columns.get(key, False) or isinstance(held, str)

    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        for number, record in enumerate(_records(place), start=1):
            value, where = _json(record), f"{place}:{number}"
            if isinstance(value, dict):
                yield Row(where, tuple(value.get(column) for column in wanted))
            else:
                yield Unreadable(where, f"expected a JSON object, as the first record is, found {record[:40]!r}")

    texts = tuple(column for column, holds_text in columns.items() if holds_text)
    return Table(f"{place} (a JSON object in each record)", tuple(columns), rows, text_columns=texts)


def _text_rows(place: Place) -> Any:
    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        for number, record in enumerate(_records(place), start=1):
            yield Row(f"{place}:{number}", (record.decode("utf-8", "surrogateescape"),) * len(wanted))

    return rows


def _json(record: bytes) -> Any:
    try:
        return json.loads(record.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _records(place: Place) -> Iterator[bytes]:
    with needs_extra("train", str(place)):
        from array_record.python.array_record_module import ArrayRecordReader

    with local_copy(place) as path:
        if not path.is_file():
            raise UserError(f"expected a file, found nothing at {path}; check the path")
        reader = ArrayRecordReader(str(path))
        try:
            # A file that is cut short opens without an error, and holds no records.
            if not reader.ok():
                raise UserError(f"{place}: expected an ArrayRecord file, found one that is cut short; copy it again")
            count = reader.num_records()
            for start in range(0, count, CHUNK):
                yield from reader.read(start, min(start + CHUNK, count))
        except RuntimeError as error:
            found = str(error).split(";")[0]
            raise UserError(
                f"{place}: expected an ArrayRecord file, found a damaged one ({found}); copy it again"
            ) from None
