"""The predict command: a file or stdin in, one answer per row out, piece by piece."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fastbert_jax.config import BadRow, DataConfig, PredictConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.calibrate import read_calibration
from fastbert_jax.inference.predictor import Prediction, load
from fastbert_jax.report.progress import progress_bar, somebody_watches
from fastbert_jax.text.examples import Example, Text, Unreadable
from fastbert_jax.text.sources import read_records
from fastbert_jax.whole_files import whole_file

CHUNK = 4096
"""Rows read, answered and written at a time: enough to fill the batches of every length."""
STANDARD = "-"

Outcome = Prediction | Unreadable
"""What a row of the input gives: an answer, or why there is none."""


def predict_file(config: PredictConfig) -> None:
    """Answer every row of `config.input` into `config.output`, in order.

    An output file appears under its name only when all of it is written. Under `skip`, a row that cannot be read
    gives a record with the reason, so that there are as many records as rows.

    Raises:
      UserError: no model, no input, an output that cannot be written, or a bad row under `stop`.
    """
    speed: float | np.ndarray = config.speed
    exits = config.exits
    if config.target:
        calibration = read_calibration(config.model, config.target)
        speed, exits = np.array(calibration.thresholds), calibration.exits
    predictor = load(config.model, exits=exits)
    predictor.require_exits()
    records = _records(config)
    known = somebody_watches() and config.input != STANDARD
    total = sum(1 for _ in _records(config)) if known else None
    bad_rows = truncated = 0
    with _output(config.output) as stream, progress_bar("predict", total=total, unit="texts") as advance:
        tsv = config.output.lower().endswith(".tsv")
        form = TsvForm(predictor.labels) if tsv else JsonForm(predictor.labels)
        stream.write(form.header)
        while chunk := list(itertools.islice(records, CHUNK)):
            texts = _readable(chunk, config)
            bad_rows += len(chunk) - len(texts)
            advance(len(chunk) - len(texts), "")
            plan = predictor.plan(texts, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
            truncated += plan.truncated_texts
            predictions = predictor.predict_plan(
                plan, speed=speed, mode=config.mode, on_batch=lambda rows: advance(rows, "")
            )
            for outcome in _in_order(chunk, predictions):
                stream.write(form.record(outcome))
            stream.flush()
    if bad_rows:
        print(f"{bad_rows} rows could not be read; their records say why", file=sys.stderr)
    if truncated:
        print(f"{truncated} texts have more than {predictor.max_length} tokens and were cut", file=sys.stderr)


def _records(config: PredictConfig) -> Iterator[Example | Unreadable]:
    data = DataConfig(text_column=config.text_column, pair_column=config.pair_column)
    return read_records(config.input, data, role="test")


def _readable(chunk: Sequence[Example | Unreadable], config: PredictConfig) -> list[Text]:
    """The texts of the rows that can be read; under `stop`, all must be."""
    bad = [record for record in chunk if isinstance(record, Unreadable)]
    if bad and config.on_bad_row is BadRow.STOP:
        raise UserError(f"{bad[0].where}: {bad[0].problem}; fix the row or pass --on-bad-row skip")
    return [record.text for record in chunk if isinstance(record, Example)]


def _in_order(chunk: Sequence[Example | Unreadable], predictions: Sequence[Prediction]) -> Iterator[Outcome]:
    """One outcome per row."""
    following = iter(predictions)
    for record in chunk:
        yield record if isinstance(record, Unreadable) else next(following)


class JsonForm:
    """One JSON object a line."""

    header = ""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def record(self, outcome: Outcome) -> str:
        """The line of one row."""
        values: dict[str, object]
        if isinstance(outcome, Unreadable):
            values = {"error": f"{outcome.where}: {outcome.problem}"}
        else:
            values = {
                "label": outcome.label,
                "probabilities": dict(zip(self._labels, map(_short, outcome.probabilities), strict=True)),
                "exit_layer": outcome.exit_layer,
                "uncertainty": _short(outcome.uncertainty),
            }
        return json.dumps(values, ensure_ascii=False) + "\n"


class TsvForm:
    """Tab-separated columns, the last one for the reason where a row has no answer."""

    def __init__(self, labels: Sequence[str]) -> None:
        columns = ["label", "exit_layer", "uncertainty", *(f"probability of {label}" for label in labels), "error"]
        self.header = self._line(columns)
        self._columns = len(columns)

    def record(self, outcome: Outcome) -> str:
        """The line of one row."""
        if isinstance(outcome, Unreadable):
            return self._line([*[""] * (self._columns - 1), f"{outcome.where}: {outcome.problem}"])
        numbers = [_short(outcome.uncertainty), *map(_short, outcome.probabilities)]
        return self._line([outcome.label, outcome.exit_layer, *numbers, ""])

    def _line(self, cells: Sequence[object]) -> str:
        return "\t".join(" ".join(str(cell).split()) for cell in cells) + "\n"


def _short(number: float) -> float:
    """All digits that a float32 has, and no more."""
    return float(f"{number:.7g}")


@contextlib.contextmanager
def _output(name: str) -> Iterator[IO[str]]:
    """Standard output, or a file that takes its name when the block ends well and leaves nothing when it does not."""
    if name == STANDARD:
        with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as stream:
            try:
                yield stream
            except BrokenPipeError:  # a reader such as `head` has enough; what is still in the buffer goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    path = Path(name).expanduser()
    try:
        with whole_file(path) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{path}: expected a place to write the answers to, found: {error.strerror}") from None
