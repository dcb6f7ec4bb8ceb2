"""Reader of .parquet files, in pieces that are smaller than their row groups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BufferedReader
from typing import Any

from fastbert_jax.errors import UserError
from fastbert_jax.text.filesystem import Place, reading
from fastbert_jax.text.lines import SNIFFED, foreign
from fastbert_jax.text.tables import Row, Rows, Table

BATCH_ROWS = 1024
"""Rows that are read together."""
# Not whole row groups, which may be larger than memory, but pieces of so many bytes.
BUFFER = 2**20


def open_parquet(place: Place, stream: BufferedReader) -> Table:
    """The table of an open .parquet file.

    Raises:
      UserError: the file is damaged or of another kind, here or while `rows` reads it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError)
    with reading(place, "a Parquet", damage):
        first = stream.peek(SNIFFED)
        if not first.startswith(b"PAR1") and (problem := foreign(first)):
            raise UserError(f"{place}: expected a Parquet file, found {problem}")
        file = pq.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False)
    schema = file.schema_arrow
    classes = _class_names(schema.metadata or {})

    def rows(columns: Sequence[str]) -> Rows:
        number = 0
        with reading(place, "a Parquet", damage):
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                read = (_parquet_values(batch.column(name), classes.get(name)) for name in columns)
                for values in zip(*read, strict=True):
                    number += 1
                    yield Row(f"{place}:{number}", dict(zip(columns, values, strict=True)))

    texts = tuple(column.name for column in schema if _is_text(column.type))
    return Table(
        str(place),
        tuple(schema.names),
        rows,
        text_columns=texts,
        class_names=classes,
        row_count=file.metadata.num_rows,
    )


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The names of the classes by column, where the library datasets of Hugging Face wrote the file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        column: tuple(names)
        for column, names in found.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    }


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _parquet_values(column: Any, classes: Sequence[str] | None) -> list[Any]:
    """The values of a column; bytes, and strings that are not UTF-8, as `surrogateescape` text.

    Args:
      classes: the names that its numbers stand for; -1 stands for none.
    """
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary()).to_pylist()
    if classes and pa.types.is_integer(column.type):
        names = dict(enumerate(classes)) | {-1: None}
        return [names.get(value, value) for value in values]
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]
