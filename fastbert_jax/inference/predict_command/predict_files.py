"""The predict command: files or stdin in, one answer per row out, chunk by chunk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.config import BadRow, DataConfig, Mode, PredictConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.calibrate import thresholds_in_use
from fastbert_jax.inference.loading import load, local_mesh
from fastbert_jax.inference.predict_command.answer_files import Form, form_of
from fastbert_jax.inference.predict_command.input_files import NAME, STDOUT, Task, tasks_of, this_process
from fastbert_jax.inference.predict_command.resumable import Done, Partial, finished, resumable_file
from fastbert_jax.inference.predict_command.row_chunks import Record, checksum_after, chunks_of, skip_done
from fastbert_jax.inference.predict_command.standard_output import StandardOutput, standard_output
from fastbert_jax.inference.predict_command.work import work_of
from fastbert_jax.inference.prediction import Prediction
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info
from fastbert_jax.report.progress import progress_bar, shows_progress
from fastbert_jax.text.examples import Example, Text, Unreadable
from fastbert_jax.text.sources import count_rows, read_records, what_is_guessed


def predict(config: PredictConfig) -> int:
    """Answer every row of the inputs that are this process's share, each input into its output, in order.

    Returns how many inputs that were; those that were answered before do not count.

    An output file appears under its name only when all of it is written. Under `skip`, a row that cannot be read
    gives a record with the reason, so that there are as many records as rows.

    Raises:
      UserError: no model, no input, an output that cannot be written or gone on with, or a bad row under `stop`.
    """
    mine = _to_do(config)
    if not mine:
        return 0
    speed, exits = thresholds_in_use(config.model, config.target, speed=config.speed, exits=config.exits)
    predictor = load(config.model, exits=exits, mesh=local_mesh(config.mesh, count=config.devices))
    predictor.require_exits()
    work = work_of(config, speed=speed, exits=exits) if config.output != STDOUT else {}
    if config.warm_up and mine:
        warm_up = predictor.warm_up(config.mode, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
        info(str(warm_up))
    answered = 0
    try:
        for task in mine:
            form = form_of(task.output, predictor.labels)
            records = read_records(task.input, _reading(config), role="test")
            guessed = what_is_guessed(task.input, _reading(config), role="test")
            if guessed:
                info(guessed)
            with _opened(task, form, config, work) as output:
                _answer(task, records, form, output, predictor, speed, config)
            _tell(task if len(mine) > 1 else None, output.done, predictor)
            answered += 1
        if config.mode is Mode.AUTO and predictor.picked:
            info(f"auto picked {predictor.picked}")
    finally:
        if 0 < answered < len(mine):
            info(f"{answered} of {len(mine)} inputs are answered; --resume leaves them out")
    return answered


def _to_do(config: PredictConfig) -> list[Task]:
    """This process's share of the inputs, without those that are answered where the command is to go on."""
    tasks = tasks_of(config.input, config.output)
    process = this_process(config.process_count, config.process_index, os.environ)
    mine = process.share(tasks)
    if process.count > 1:
        nothing = "" if mine else ": nothing to do"
        info(f"{process} answers {len(mine)} of {len(tasks)} inputs{nothing}")
    if not config.resume:
        return mine
    left = [task for task in mine if not finished(Path(task.output).expanduser())]
    if len(left) < len(mine):
        which = mine[0].output if len(mine) == 1 else f"{len(mine) - len(left)} of {len(mine)} outputs"
        info(f"{which}: whole already, nothing to do; without --resume made anew")
    return left


@contextlib.contextmanager
def _opened(
    task: Task, form: Form, config: PredictConfig, work: Mapping[str, Any]
) -> Iterator[Partial | StandardOutput]:
    if task.output == STDOUT:
        with standard_output() as output:
            yield output
    else:
        path = Path(task.output).expanduser()
        work = {"input": task.input, **work}
        several = NAME in config.output
        with resumable_file(path, form, work=work, resume=config.resume, make_directory=several) as partial:
            yield partial


def _answer(
    task: Task,
    records: Iterable[Record],
    form: Form,
    output: Partial | StandardOutput,
    predictor: Predictor,
    speed: float | np.ndarray,
    config: PredictConfig,
) -> None:
    """Answer the rows of one input that are not answered yet."""
    chunks = chunks_of(records)
    skip_done(chunks, output.done, name=task.input)
    total = count_rows(task.input, _reading(config), role="test") if shows_progress() else None
    with progress_bar("predict", total=total, unit="texts", done=output.done.rows) as advance:
        for chunk in chunks:
            texts = _readable(chunk, config)
            advance(len(chunk) - len(texts), "")
            plan = predictor.plan(texts, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
            predictions = predictor.predict_plan(
                plan, speed=speed, mode=config.mode, on_batch=lambda rows: advance(rows, "")
            )
            before = output.done
            piece = form.piece(list(_in_order(chunk, predictions)))
            done = Done(
                rows=before.rows + len(chunk),
                unreadable=before.unreadable + len(chunk) - len(texts),
                cut=before.cut + plan.truncated_texts,
                checksum=checksum_after(before.checksum, chunk),
            )
            output.add(piece if before.rows else form.header() + piece, done)


def _reading(config: PredictConfig) -> DataConfig:
    return DataConfig(text_column=config.text_column, pair_column=config.pair_column, delimiter=config.delimiter)


def _tell(task: Task | None, done: Done, predictor: Predictor) -> None:
    """Say what became of rows that are not as the others; with the input's name where there are several."""
    name = f"{task.input}: " if task else ""
    if done.unreadable:
        info(f"{name}{done.unreadable} rows could not be read; their records say why")
    if done.cut:
        info(f"{name}{done.cut} texts have more than {predictor.max_length} tokens and were cut")


def _readable(chunk: Sequence[Record], config: PredictConfig) -> list[Text]:
    """The texts of the rows that can be read; under `stop`, all must be."""
    bad = [record for record in chunk if isinstance(record, Unreadable)]
    if bad and config.on_bad_row is BadRow.STOP:
        raise UserError(f"{bad[0].where}: {bad[0].problem}; fix the row or pass --on-bad-row skip")
    return [record.text for record in chunk if isinstance(record, Example)]


def _in_order(chunk: Sequence[Record], predictions: Sequence[Prediction]) -> Iterator[Prediction | Unreadable]:
    """One outcome per row."""
    following = iter(predictions)
    for record in chunk:
        yield record if isinstance(record, Unreadable) else next(following)
