"""What a model's exits know of some labelled texts: the paper's figures and table, with the time that it leaves out.

Shapes in names: B texts, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastbert_jax.config import BATCH_TOKENS, Mode, StudyConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.asked_texts import CURVE, AskedTexts, Flops, full_depth_flops
from fastbert_jax.inference.compare import FULL_DEPTH, Choice, TimedCase, answer, origin, timed_case
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.timing import evenly, interleaved_times, speedups_over_first
from fastbert_jax.report import study_plots, study_tables
from fastbert_jax.report.exit_study import BaselineRow, ExitStudy
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.examples import Text
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tasks import label_ids
from fastbert_jax.whole_files import write_json, write_text


def study_spec(config: StudyConfig) -> str:
    """Do what `infer.py study` asks: write tables, pictures and numbers; the tables.

    Raises:
      UserError: no model, no data, a label that a model does not know, other classes in a baseline, or no place to
        write to.
    """
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    baselines = {path: load(path) for path in config.baselines}
    for name, baseline in baselines.items():
        baseline.require_exits()
        if baseline.labels != predictor.labels:
            raise UserError(f"{name}: expected the model's labels {predictor.labels}, found {baseline.labels}")
    directory = Path(config.output).expanduser()
    _make(directory)
    found = read_examples(config.data, config.reading, need_label=True, role="test").examples
    examples = [found[i] for i in evenly(len(found), config.limit)]
    made = study(
        predictor,
        [example.text for example in examples],
        label_ids(examples, predictor.labels, remedy="fix the row, or study a model that knows this label"),
        name=config.name or f"{config.model} on {config.data}",
        speeds=config.speeds,
        mode=config.mode,
        repeats=config.repeats,
        timed_texts=config.timed_texts,
        baselines=baselines,
    )
    tables = study_tables.render(made)
    try:
        write_json(directory / "study.json", made.to_json())
        write_text(directory / "study.md", tables)
        study_plots.draw(made, directory)
    except OSError as error:
        raise UserError(f"{directory}: expected a directory that can be written, found {error}") from None
    return tables


def study(
    predictor: Predictor,
    texts: Sequence[Text],
    expected_B: np.ndarray,
    *,
    name: str,
    speeds: Sequence[float],
    mode: Mode,
    repeats: int,
    timed_texts: int,
    baselines: Mapping[str, Predictor],
) -> ExitStudy:
    """Ask the predictor's exits of every text, then time the speeds and the baselines in turns.

    Args:
      expected_B: int, the right answers as indices into the predictor's labels.
      speeds: rising thresholds above 0, for the table.
      baselines: other models with the same labels, by name; each counts at its full depth.
      timed_texts: how many texts are timed, spread evenly; 0: all.

    Raises:
      UserError: no texts.
    """
    asked = AskedTexts.of(predictor, texts, expected_B)
    choices: list[tuple[Predictor, Choice]] = [(predictor, (mode, speed)) for speed in speeds]
    choices += [(baseline, FULL_DEPTH) for baseline in baselines.values()]
    timed, measured = _measured(predictor, choices, texts, repeats=repeats, timed_texts=timed_texts)
    table = [
        dataclasses.replace(asked.point(speed), measured=spread)
        for speed, spread in zip(speeds, measured[: len(speeds)], strict=True)
    ]
    return ExitStudy(
        name=name,
        texts=len(texts),
        classes=predictor.config.num_classes,
        mode=mode.value,
        timed_texts=len(timed.texts),
        layers=predictor.config.num_layers,
        exits=tuple(asked.exit_row(layer) for layer in asked.asked_layers()),
        full_depth=asked.full_depth(),
        table=tuple(table),
        curve=tuple(asked.point(speed) for speed in CURVE),
        baselines=tuple(
            _baseline(name, baseline, texts, expected_B, asked.full_flops, spread)
            for (name, baseline), spread in zip(baselines.items(), measured[len(speeds) :], strict=True)
        ),
        origin=dataclasses.asdict(origin()),
    )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: expected a directory that can be written, found {error}") from None


def _measured(
    predictor: Predictor,
    choices: Sequence[tuple[Predictor, Choice]],
    texts: Sequence[Text],
    *,
    repeats: int,
    timed_texts: int,
) -> tuple[TimedCase, list[Spread]]:
    """The texts that are timed, and how many times faster than full depth each choice answers them."""
    case = functools.partial(timed_case, texts=texts, batch_size=0, batch_tokens=BATCH_TOKENS, timed_texts=timed_texts)
    cases = {one: case(one) for one in (predictor, *(one for one, _ in choices))}
    turns = [(predictor, FULL_DEPTH), *choices, (predictor, FULL_DEPTH)]
    runs = [functools.partial(answer, one, cases[one].plan, choice) for one, choice in turns]
    with progress_bar("study", total=len(runs) * (repeats + 1), unit="passes") as advance:
        for run in runs:  # the pass that compiles
            run()
            advance(1, "")
        times = interleaved_times(runs, repeats, on_run=lambda: advance(1, ""))
    return cases[predictor], [Spread.of(ratios) for ratios in speedups_over_first(times)]


def _baseline(
    name: str, baseline: Predictor, texts: Sequence[Text], expected_B: np.ndarray, full: Flops, measured: Spread
) -> BaselineRow:
    """A baseline at its full depth, beside `full`, what the studied model spends at its own."""
    plan = baseline.plan(texts)
    found = answer(baseline, plan, FULL_DEPTH)
    flops = full_depth_flops(baseline.config, plan.padded_lengths)
    return BaselineRow(
        name=name,
        layers=baseline.config.num_layers,
        accuracy=float((found.probabilities_BxN.argmax(-1) == expected_B).mean()),
        paper_flops=flops.paper,
        paper_speedup=full.paper / flops.paper,
        true_speedup=full.true / flops.true,
        measured=measured,
    )
