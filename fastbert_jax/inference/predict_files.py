"""The predict command: a file or stdin in, one answer per text out, piece by piece."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from fastbert_jax.config import BadRow, DataConfig, PredictConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.predictor import Prediction, Predictor, load
from fastbert_jax.report.progress import progress
from fastbert_jax.text.examples import Example, Unreadable
from fastbert_jax.text.sources import read_records

CHUNK = 4096
"""Texts read, answered and written at a time: enough to fill the batches of every length."""
STANDARD = "-"


def predict_file(config: PredictConfig) -> None:
    """Answer every text of `config.input` into `config.output`, in order.

    A file appears under its name only when all is written. Under `skip`, a row that cannot be read gives a record with
    its place and the reason, so that there are as many records as rows.

    Raises:
      UserError: no model, no input, an output that cannot be written, or a bad row under `stop`.
    """
    predictor = load(config.model)
    data = DataConfig(text_column=config.text_column, pair_column=config.pair_column, on_bad_row=config.on_bad_row)
    records = read_records(config.input, data, role="test")
    with _output(config.output) as stream, progress("texts") as advance:
        write = _tsv_writer(stream, predictor) if config.output.lower().endswith(".tsv") else _json_writer(stream, predictor)
        for chunk in _chunks(records, CHUNK):
            for record, prediction in _answers(predictor, chunk, config):
                write(record, prediction)
            advance(len(chunk))


def _answers(
    predictor: Predictor, chunk: Sequence[Example | Unreadable], config: PredictConfig
) -> Iterator[tuple[Example | Unreadable, Prediction | None]]:
    """Each record with its answer; a row that cannot be read has none."""
    for record in chunk:
        if isinstance(record, Unreadable) and config.on_bad_row is BadRow.STOP:
            raise UserError(f"{record.where}: {record.problem}; fix the row or pass --on-bad-row skip")
    texts = [record.text for record in chunk if isinstance(record, Example)]
    predictions = iter(
        predictor.predict(texts, speed=config.speed, mode=config.mode, batch_size=config.batch_size)
    )
    for record in chunk:
        yield record, next(predictions) if isinstance(record, Example) else None
