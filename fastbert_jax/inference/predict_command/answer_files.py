"""The forms that answers are written in: JSON lines, tables as text, and Parquet, as pieces of bytes to join."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.filesystem import codec_of, compressed, without_compression

if TYPE_CHECKING:
    from fastbert_jax.inference.prediction import Prediction

ROW_GROUP = 2**16
"""Rows of a row group in Parquet."""


class Form(Protocol):
    """How answers become bytes.

    A file is a header and any number of pieces after it; cut off between two pieces it is sound, and more can follow.
    """

    def header(self) -> bytes:
        """What stands before the first piece."""

    def piece(self, outcomes: Sequence[Prediction | Unreadable]) -> bytes:
        """The records of some rows."""

    def convert(self, pieces: Path, stream: IO[bytes]) -> None:
        """Write the file that a reader expects, from header and pieces; not called where those are it already."""

    converts: bool
    """Whether `convert` has to be called in the end."""


def form_of(output: str, labels: Sequence[str]) -> Form:
    """The form that an output's name tells; standard output, `-`, has JSON lines.

    Args:
      output: a name with one of `config.ANSWER_ENDINGS`, and perhaps one of `config.COMPRESSED_ENDINGS` after it.
      labels: one name per class.
    """
    if output == "-":
        return JsonForm(labels)
    ending = without_compression(output).suffix.lower()
    if ending == ".parquet":
        return ParquetForm(labels)
    form: Form = TableForm(labels, ending) if ending in (".tsv", ".csv") else JsonForm(labels)
    codec = codec_of(output)
    return CompressedForm(form, codec) if codec else form


class TextForm:
    """What forms of text have in common: their pieces are the file."""

    converts = False

    def convert(self, pieces: Path, stream: IO[bytes]) -> None:
        """Never needed."""
        raise NotImplementedError


class JsonForm(TextForm):
    """One JSON object a line."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def header(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, outcomes: Sequence[Prediction | Unreadable]) -> bytes:
        """A line for each row."""
        return _encoded("".join(json.dumps(self._values(outcome), ensure_ascii=False) + "\n" for outcome in outcomes))

    def _values(self, outcome: Prediction | Unreadable) -> dict[str, object]:
        if isinstance(outcome, Unreadable):
            return {"error": _reason(outcome)}
        return {
            "label": outcome.label,
            "probabilities": dict(zip(self._labels, map(_short, outcome.probabilities), strict=True)),
            "exit_layer": outcome.exit_layer,
            "uncertainty": _short(outcome.uncertainty),
        }


class TableForm(TextForm):
    """Columns, the last one for the reason where a row has no answer: with tabs, or with commas and quotes."""

    def __init__(self, labels: Sequence[str], ending: str) -> None:
        self._columns = _columns(labels)
        self._lines = {".tsv": _tsv, ".csv": _csv}[ending]

    def header(self) -> bytes:
        """The names of the columns."""
        return _encoded(self._lines([self._columns]))

    def piece(self, outcomes: Sequence[Prediction | Unreadable]) -> bytes:
        """A line for each row."""
        return _encoded(self._lines([self._cells(outcome) for outcome in outcomes]))

    def _cells(self, outcome: Prediction | Unreadable) -> list[object]:
        if isinstance(outcome, Unreadable):
            return [*[""] * (len(self._columns) - 1), _reason(outcome)]
        numbers = [_short(outcome.uncertainty), *map(_short, outcome.probabilities)]
        return [outcome.label, outcome.exit_layer, *numbers, ""]


class CompressedForm(TextForm):
    """A form of text whose header and pieces are a gzip member or zstd frame each."""

    def __init__(self, form: Form, codec: str) -> None:
        self._form, self._codec = form, codec

    def header(self) -> bytes:
        """The other form's, compressed; nothing where it has none."""
        header = self._form.header()
        return compressed(header, self._codec) if header else b""

    def piece(self, outcomes: Sequence[Prediction | Unreadable]) -> bytes:
        """The other form's, compressed."""
        return compressed(self._form.piece(outcomes), self._codec)


class ParquetForm:
    """The columns of a table, typed. A Parquet file cannot grow, so the pieces are Arrow's stream format."""

    converts = True

    def __init__(self, labels: Sequence[str]) -> None:
        self._columns = _columns(labels)

    @functools.cached_property
    def _schema(self) -> Any:
        import pyarrow as pa

        kinds = [pa.string(), pa.int32(), *[pa.float32()] * (len(self._columns) - 3), pa.string()]
        return pa.schema(list(zip(self._columns, kinds, strict=True)))

    def header(self) -> bytes:
        """The names and types of the columns."""
        return self._schema.serialize().to_pybytes()

    def piece(self, outcomes: Sequence[Prediction | Unreadable]) -> bytes:
        """A batch with a row for each row."""
        import pyarrow as pa

        rows = [self._cells(outcome) for outcome in outcomes]
        arrays = [
            pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        return pa.record_batch(arrays, schema=self._schema).serialize().to_pybytes()

    def _cells(self, outcome: Prediction | Unreadable) -> list[object]:
        if isinstance(outcome, Unreadable):
            return [*[None] * (len(self._columns) - 1), _encoded(_reason(outcome)).decode()]
        return [outcome.label, outcome.exit_layer, outcome.uncertainty, *outcome.probabilities, None]

    def convert(self, pieces: Path, stream: IO[bytes]) -> None:
        """Turn Arrow's stream into Parquet, a row group at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pa.OSFile(str(pieces)) as source, pq.ParquetWriter(stream, self._schema, compression="zstd") as writer:
            waiting: list[Any] = []
            for batch in pa.ipc.open_stream(source):
                waiting.append(batch)
                if sum(map(len, waiting)) >= ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(waiting), row_group_size=ROW_GROUP)
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))


def _columns(labels: Sequence[str]) -> list[str]:
    return ["label", "exit_layer", "uncertainty", *(f"probability of {label}" for label in labels), "error"]


def _tsv(rows: Sequence[Sequence[object]]) -> str:
    return "".join("\t".join(" ".join(str(cell).split()) for cell in cells) + "\n" for cells in rows)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _reason(row: Unreadable) -> str:
    return f"{row.where}: {row.problem}"


def _short(number: float) -> float:
    """All digits that a float32 has, and no more."""
    return float(f"{number:.7g}")


def _encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, as in the name of a file that is no UTF-8, is written as its escape."""
    return text.encode("utf-8", "backslashreplace")
