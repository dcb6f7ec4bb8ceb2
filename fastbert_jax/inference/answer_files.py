"""The files that answers are written to: JSON lines, .tsv, .csv or Parquet, joined from parts, which can be resumed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastbert_jax.atomic_files import atomic_file, check_place, lock_file, unless_refused, user_path, write_json
from fastbert_jax.command_line import drop_standard_output
from fastbert_jax.errors import UserError
from fastbert_jax.inference.prediction import Prediction, short
from fastbert_jax.log import info
from fastbert_jax.text.examples import Example, Unreadable
from fastbert_jax.text.filesystem import codec_of, compressed, without_compression

STDOUT = "-"
WRITE = "write the answers there"
OWN_COLUMNS = ("row", "label", "exit_layer", "uncertainty", "probabilities", "error")
"""What an answer has, in tables one column for each of the probabilities."""
ROW_GROUP = 2**16
"""Rows of a row group in Parquet, at least."""


@dataclass(frozen=True)
class AnswerFormat:
    """How answers become bytes: parts of some rows each, which are joined in the end."""

    ending: str
    """One of `config.ANSWER_ENDINGS`."""
    codec: str | None
    """The compression of each part; None for none."""
    labels: Sequence[str]
    """One name per class."""
    keep: tuple[str, ...] = ()
    """Columns of the input."""
    top: int = 0
    """How many labels have their probability written; 0: all."""
    probabilities: bool = True
    """Whether probabilities are written."""

    @classmethod
    def of(cls, output: str, labels: Sequence[str], **settings: Any) -> AnswerFormat:
        """The format that the name of an output stands for; standard output, `-`, gets JSON lines.

        Raises:
          UserError: two columns would have one name.
        """
        ending, codec = (".jsonl", None) if output == STDOUT else (without_compression(output).suffix, codec_of(output))
        form = cls(ending.lower(), codec, labels, **settings)
        if len(set(form.columns)) < len(form.columns):
            raise UserError(f"--keep: expected columns that keep their names apart, found {list(form.kept_names)}")
        return form

    @property
    def kept_names(self) -> tuple[str, ...]:
        """The names of the kept columns in the output: after `input_` where an answer has a column of this name."""
        own = {*OWN_COLUMNS, *self._probability_columns}
        return tuple(f"input_{name}" if name in own else name for name in self.keep)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table; the last one holds the reason where a row has no answer."""
        row, label, exit_layer, uncertainty, _, error = OWN_COLUMNS
        return (label, exit_layer, uncertainty, *self._probability_columns, row, *self.kept_names, error)

    @property
    def _probability_columns(self) -> tuple[str, ...]:
        if not self.probabilities:
            return ()
        if not self.top:
            return tuple(f"probability of {label}" for label in self.labels)
        ranks = range(1, min(self.top, len(self.labels)) + 1)
        return tuple(f"{what} {rank}" for rank in ranks for what in ("label", "probability"))

    def part(self, rows: Iterable[Example | Unreadable], answers: Iterable[Prediction], *, first: int = 1) -> bytes:
        """The bytes of some rows.

        Args:
          answers: to the rows that could be read.
          first: the number of the first row, from 1; every row counts.
        """
        left = iter(answers)
        found = [
            (number, row.kept, row if isinstance(row, Unreadable) else next(left))
            for number, row in enumerate(rows, start=first)
        ]
        match self.ending:
            case ".parquet":
                return self._parquet([self._cells(*row) for row in found])
            case ".tsv" | ".csv":
                return self._encoded(self._lines([[_short(cell) for cell in self._cells(*row)] for row in found]))
        return self._encoded("".join(_json(self._record(*row)) + "\n" for row in found))

    def join(self, parts: Sequence[Path], stream: IO[bytes]) -> None:
        """Write the whole file from its parts."""
        if self.ending == ".parquet":
            _join_parquet(parts, stream)
            return
        if self.ending in (".tsv", ".csv"):
            stream.write(self._encoded(self._lines([self.columns])))
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, stream)

    def _cells(self, number: int, values: tuple[Any, ...], answer: Prediction | Unreadable) -> list[Any]:
        """The row of a table, with the values that are kept: texts, numbers, and None for what is not there."""
        kept = [_text_of(value) for value in values]
        if isinstance(answer, Unreadable):
            empty = [None] * (len(self.columns) - len(kept) - 2)
            return [*empty, number, *kept, f"{answer.where}: {answer.problem}"]
        shown: Iterable[Any] = map(float, answer.probabilities) if self.probabilities else ()
        if self.probabilities and self.top:
            shown = (cell for pair in answer.most_probable(self.top).items() for cell in pair)
        return [answer.label, answer.exit_layer, answer.uncertainty, *shown, number, *kept, None]

    def _record(self, number: int, values: tuple[Any, ...], answer: Prediction | Unreadable) -> dict[str, Any]:
        """The JSON object of a row, with the values that are kept."""
        record: dict[str, Any] = {"row": number, **dict(zip(self.kept_names, values, strict=True))}
        if isinstance(answer, Unreadable):
            return record | {"error": f"{answer.where}: {answer.problem}"}
        record |= answer.to_dict(top=self.top)
        if not self.probabilities:
            del record["probabilities"]
        return record

    def _lines(self, rows: Sequence[Sequence[object]]) -> str:
        """Rows of a table as text: with tabs, where blanks in a cell become one space, or with commas and quotes."""
        if self.ending == ".tsv":
            cells = [["" if cell is None else " ".join(str(cell).split()) for cell in row] for row in rows]
            return "".join("\t".join(row) + "\n" for row in cells)
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(rows)
        return stream.getvalue()

    def _encoded(self, text: str) -> bytes:
        return compressed(_utf8(text), self.codec) if self.codec else _utf8(text)

    def _parquet(self, rows: Sequence[Sequence[Any]]) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = {"row": pa.int64(), "exit_layer": pa.int32(), "uncertainty": pa.float32()}
        numbers |= {name: pa.float32() for name in self._probability_columns if name.startswith("probability ")}
        kinds = [pa.string() if name in self.kept_names else numbers.get(name, pa.string()) for name in self.columns]
        arrays = [
            pa.array([_utf8(cell) if isinstance(cell, str) else cell for cell in column], kind)
            for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)
        ]
        stream = io.BytesIO()
        pq.write_table(pa.table(arrays, names=self.columns), stream, compression="zstd")
        return stream.getvalue()


def _json(value: Any) -> str:
    """One line of JSON; numbers that JSON does not have become null, and values of other types their words."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        plain = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        return json.dumps(plain, ensure_ascii=False)


def _text_of(value: Any) -> str | None:
    """A value of an input as the cell of a table: lists and objects as JSON, others as they are written."""
    if value is None or isinstance(value, str):
        return value
    written = _json(value)
    return str(value) if written.startswith('"') else written  # a date: JSON has no dates


def _join_parquet(parts: Sequence[Path], stream: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(stream, pq.read_schema(parts[0]), compression="zstd") as writer:
        waiting: list[Any] = []
        for part in parts:
            waiting.append(pq.read_table(part))
            if part == parts[-1] or sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting), row_group_size=2 * ROW_GROUP)
                waiting = []


def _short(cell: Any) -> Any:
    return short(cell) if isinstance(cell, float) else cell


def _utf8(text: str) -> bytes:
    """UTF-8; half a surrogate pair, as in the name of a file that is not UTF-8, is written as its escape."""
    return text.encode("utf-8", "backslashreplace")


class AnswerFile:
    """An output that is written part by part, in the directory NAME.partial, and joined in the end."""

    def __init__(self, name: str) -> None:
        self._path = user_path(name)
        self.directory = self._path.with_name(f"{self._path.name}.partial")
        """Of the parts, while the output is not complete."""
        self.parts: list[Path] = []
        """In the order of the rows; the directory may hold others, for rows that have changed since."""

    def is_complete(self) -> bool:
        """Whether the output is there, and no later one is begun."""
        with unless_refused(self._path, WRITE):
            return self._path.exists() and not self.directory.exists()

    def check(self) -> None:
        """Raise `UserError` where the output cannot be written."""
        with unless_refused(self._path, WRITE):
            check_place(self._path)

    def has(self, checksum: str) -> bool:
        """Whether the next part is there already, made for rows of this checksum. If so, it is taken."""
        part = self._next(checksum)
        exists = part.exists()
        if exists:
            self.parts.append(part)
        return exists

    def add(self, checksum: str, content: bytes) -> None:
        """Write the next part; when this returns, it is on the disk and outlives the process.

        Args:
          checksum: of the rows that it answers.

        Raises:
          UserError: it cannot be written.
        """
        part = self._next(checksum)
        with unless_refused(self._path, WRITE), atomic_file(part, "wb") as stream:
            stream.write(content)
        self.parts.append(part)

    def _next(self, checksum: str) -> Path:
        return self.directory / f"{len(self.parts):06}-{checksum}"

    def _all_parts(self) -> list[Path]:
        return list(self.directory.glob("[0-9]*-*"))

    def _begin(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Keep the parts of a process that was stopped if they are to be resumed, else remove them."""
        file, now, parts = self.directory / "settings.json", json.loads(json.dumps(settings)), self._all_parts()
        if parts and resume and file.exists():  # not where a kill came while the directory was removed
            there = json.loads(file.read_text(encoding="utf-8"))
            differences = [
                f"{key}: there {there.get(key)!r}, now {now.get(key)!r}"
                for key in there | now
                if there.get(key) != now.get(key)
            ]
            if differences:
                raise UserError(
                    f"{self.directory}: expected the settings it was begun with, found {'; '.join(differences)}; use "
                    "the same settings to resume it, or leave out --resume to start over"
                )
            return
        if parts and not resume:
            info(f"{self.directory}: started over; --resume would have kept the answers in it")
        for part in parts:
            part.unlink()
        write_json(file, now)

    @contextlib.contextmanager
    def opened(self, form: AnswerFormat, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Write the output in this block. It appears when the block succeeds, with nothing left beside it.

        When the block fails or the process is killed, the parts that were added stay, and `resume` takes them.

        Args:
          settings: what answers depend on besides the texts, as JSON values by name, the same for all parts.

        Raises:
          UserError: the file cannot be written, another process writes it, or its parts were made with other settings.
        """
        with contextlib.ExitStack() as stack:
            with unless_refused(self._path, WRITE):
                self.directory.mkdir(parents=True, exist_ok=True)
                lock_file(stack.enter_context(open(self.directory / "lock", "w")), self._path)
            try:
                with unless_refused(self._path, WRITE):
                    self._begin(settings, resume=resume)
                yield
                with unless_refused(self._path, WRITE), atomic_file(self._path, "wb") as stream:
                    form.join(self.parts, stream)
            except BaseException:
                if self.parts:
                    info(
                        f"{self.directory} holds the answers so far; the same command with --resume goes on after them"
                    )
                elif not self._all_parts():
                    shutil.rmtree(self.directory, ignore_errors=True)
                raise
        with unless_refused(self._path, WRITE):
            shutil.rmtree(self.directory)  # after the lock: NFS keeps the directory of an open file


class StandardOutput:
    """Answers to standard output, in the place of an `AnswerFile`."""

    def has(self, checksum: str) -> bool:
        """Never."""
        return False

    def add(self, checksum: str, content: bytes) -> None:
        """Write the answers to the next rows."""
        self._stream.write(content)
        self._stream.flush()

    @contextlib.contextmanager
    def opened(self, form: AnswerFormat, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Open it for the block, which ends early and without an error when a reader such as `head` has enough.

        Raises:
          UserError: it leads to a file that cannot be written.
        """
        with unless_refused("standard output", WRITE):
            try:
                with open(sys.stdout.fileno(), "wb", closefd=False) as self._stream:
                    yield
            except BrokenPipeError:
                drop_standard_output()
