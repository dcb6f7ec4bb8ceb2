"""Readers of files, row by row: .tsv, .csv, .jsonl and .txt, compressed or not, and .parquet, all as tables."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastbert_jax.config import COMPRESSED_ENDINGS, Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.text.array_records import is_array_record, open_array_record
from fastbert_jax.text.compression import MAGIC, codec_of, opened, without_compression
from fastbert_jax.text.delimited import open_csv, open_tsv
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.filesystem import Place, is_directory, is_file, open_bytes, place_of
from fastbert_jax.text.lines import BOM, lines_of
from fastbert_jax.text.tables import Row, Table

# Keys of a JSON object may differ from line to line; this many lines are looked at to know the columns.
JSON_LINES_TO_LOOK_AT = 100
# Parquet is read in pieces of so many bytes, not by whole row groups, which may be larger than memory.
PARQUET_BUFFER = 2**20


def open_file(path: str | Path, *, delimiter: Delimiter = Delimiter.AUTO) -> Table:
    """Open a file by its ending, local or behind a `scheme://` that fsspec knows.

    Args:
      delimiter: what stands between the columns of a .csv file.

    Raises:
      UserError: no such file, an ending without a reader, an empty file, another encoding than UTF-8 or a
        compression that the name does not tell by its first bytes, a header that cannot be read, or (from `rows`
        too) a file that is damaged as a whole.
    """
    path = place_of(path)
    if is_array_record(path):
        return open_array_record(path)
    readers: dict[str, Callable[[Place], Table]] = {
        ".tsv": open_tsv,
        ".csv": functools.partial(open_csv, delimiter=delimiter),
        ".jsonl": _open_jsonl,
        ".parquet": _open_parquet,
        ".txt": _open_txt,
    }
    reader = readers.get(without_compression(path).suffix.lower())
    if reader is None:
        known = ", ".join((*readers, ".arrayrecord"))
        endings = f"{known}, or such an ending with {' or '.join(COMPRESSED_ENDINGS)} after it"
        raise UserError(f"expected a file ending in {endings}, found {str(path)!r}")
    if reader is _open_parquet and codec_of(path):
        raise UserError(
            f"{path}: expected a Parquet file as it is, for it is compressed inside, found {Path(path).suffix}"
        )
    if not is_file(path):
        if is_directory(path):
            raise UserError(f"expected a file, found a directory at {path}")
        raise UserError(f"expected a file, found nothing at {path}; check the path")
    with opened(path) as stream:
        start = stream.read(4)
    if not start.removeprefix(BOM):
        raise UserError(f"{path}: expected rows, found an empty file")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: expected UTF-8, found UTF-16; save the file again as UTF-8")
    for magic, ending in MAGIC.items():
        if start.startswith(magic):
            raise UserError(f"{path}: expected text, found compressed bytes; its name should end in {ending}")
    return reader(path)


def open_lines(stream: BinaryIO, name: str) -> Table:
    """A stream of one text a line as a table with the column `text`; an empty line is an empty text."""

    def rows(columns: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        for number, line in enumerate(lines_of(stream, name), start=1):
            yield Row(f"{name}:{number}", (line,) * len(columns))

    return Table(name, ("text",), rows, text_columns=("text",))


def _open_txt(path: Place) -> Table:
    def rows(columns: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        with opened(path) as stream:
            yield from open_lines(stream, str(path)).rows(columns)

    return Table(str(path), ("text",), rows, text_columns=("text",))


def _open_jsonl(path: Place) -> Table:
    columns: dict[str, bool] = {}
    with opened(path) as stream:
        for record in itertools.islice(_json_records(path, stream), JSON_LINES_TO_LOOK_AT):
            if not isinstance(record, Unreadable):
                for key, value in record[1].items():
                    columns[key] = columns.get(key, False) or isinstance(value, str)

    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        with opened(path) as stream:
            for record in _json_records(path, stream):
                if isinstance(record, Unreadable):
                    yield record
                else:
                    yield Row(record[0], tuple(record[1].get(column) for column in wanted))

    if not columns:  # let the first bad line speak for itself
        first = next(rows(()), None)
        found = f"{first.where}: {first.problem}" if isinstance(first, Unreadable) else f"{path}: found no objects"
        raise UserError(f'{found}; a .jsonl file holds one JSON object a line, such as {{"text": ..., "label": ...}}')
    texts = tuple(column for column, holds_text in columns.items() if holds_text)
    return Table(str(path), tuple(columns), rows, text_columns=texts)


def _json_records(path: Place, stream: BinaryIO) -> Iterator[tuple[str, dict[str, Any]] | Unreadable]:
    for number, line in enumerate(lines_of(stream, str(path)), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Unreadable(where, f"expected a JSON object, found {error}")
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            yield Unreadable(where, f"expected a JSON object, found {line.strip()[:40]!r}")


def _open_parquet(path: Place) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = functools.partial(pq.ParquetFile, buffer_size=PARQUET_BUFFER, pre_buffer=False)

    def damaged(error: Exception) -> UserError:
        return UserError(f"{path}: expected a Parquet file, found a damaged one ({str(error).strip()}); copy it again")

    try:
        with open_bytes(path) as stream, parquet(stream) as file:
            schema, row_count = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise damaged(error) from None

    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        try:
            with open_bytes(path) as stream, parquet(stream) as file:
                number = 0
                for batch in file.iter_batches(batch_size=1024, columns=list(wanted)):
                    for values in zip(*(_parquet_values(batch.column(name)) for name in wanted), strict=True):
                        number += 1
                        yield Row(f"{path}:{number}", values)
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from None

    return Table(str(path), tuple(schema.names), rows, text_columns=_parquet_text_columns(schema), row_count=row_count)


def _parquet_text_columns(schema: Any) -> tuple[str, ...]:
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    return tuple(field.name for field in schema if is_text(field.type))


def _parquet_values(column: Any) -> list[Any]:
    """The values of a column; bytes, and strings that are no UTF-8, as `surrogateescape` text."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary()).to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]
