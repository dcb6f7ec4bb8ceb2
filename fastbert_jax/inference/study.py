"""What a model's exits know of some labelled texts: the paper's figures and table, with the time that it leaves out.

Shapes in names: B texts, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastbert_jax.config import BATCH_TOKENS, BertConfig, Mode, StudyConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import FULL_DEPTH, Choice, TimedCase, answer, origin, timed_case
from fastbert_jax.inference.exit_answers import ExitAnswers
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.timing import evenly, interleaved_times, speedups_over_first
from fastbert_jax.report import study_plots, study_tables
from fastbert_jax.report.exit_study import (
    BaselineRow,
    ExitRow,
    ExitStudy,
    SpeedPoint,
    uncertainty_bins,
    uncertainty_of_arrivals,
)
from fastbert_jax.report.flops import Count, only_the_last, total_flops
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.examples import Text
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tasks import label_ids
from fastbert_jax.whole_files import write_json, write_text

CURVE = tuple(np.linspace(0, 1, 41).round(3).tolist())
"""Speeds of the curves."""


class Flops(NamedTuple):
    """Per text, as the paper counts and as spent."""

    paper: float
    true: float


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
    make_directory(directory)
    found = read_examples(config.data, config.reading, need_label=True, role="test")
    found.tell_skipped()
    examples = [found.examples[i] for i in evenly(len(found.examples), config.limit)]
    texts = [example.text for example in examples]
    expected_B = label_ids(examples, predictor.labels, remedy="fix the row, or study a model that knows this label")
    name = config.name or f"{config.model} on {config.data}"
    made = timed_study(
        study(predictor, texts, expected_B, name=name, speeds=config.speeds),
        predictor,
        texts,
        expected_B,
        mode=config.mode,
        repeats=config.repeats,
        timed_texts=config.timed_texts,
        baselines=baselines,
    )
    write_study(made, directory)
    return study_tables.render(made)


def write_study(made: ExitStudy, directory: Path) -> None:
    """Write study.json, study.md and the pictures.

    Raises:
      UserError: they cannot be written.
    """
    try:
        write_json(directory / "study.json", made.to_json())
        write_text(directory / "study.md", study_tables.render(made))
        study_plots.draw(made, directory)
    except OSError as error:
        raise UserError(f"{directory}: expected a directory that can be written, found {error}") from None


def study(
    predictor: Predictor, texts: Sequence[Text], expected_B: np.ndarray, *, name: str, speeds: Sequence[float]
) -> ExitStudy:
    """Ask the predictor's exits of every text; nothing is timed.

    Args:
      expected_B: int, the right answers as indices into the predictor's labels.
      speeds: rising thresholds above 0, for the table.

    Raises:
      UserError: no texts.
    """
    if not len(texts):
        raise UserError("study: expected at least one text, found none")
    plan = predictor.plan(texts)
    exits, lengths_B = ExitAnswers.of(*predictor.all_exits(plan)), plan.padded_lengths
    full_flops = _full_depth_flops(predictor, lengths_B)
    point = functools.partial(_point, predictor, exits, expected_B, lengths_B, full_flops)
    return ExitStudy(
        name=name,
        texts=len(texts),
        classes=predictor.config.num_classes,
        layers=predictor.config.num_layers,
        exits=tuple(_exit_rows(predictor, exits, expected_B, lengths_B, full_flops)),
        full_depth=point(0.0, asked=only_the_last(predictor.config)),
        table=tuple(point(speed) for speed in speeds),
        curve=tuple(point(speed) for speed in CURVE),
        origin=dataclasses.asdict(origin()),
    )


def timed_study(
    made: ExitStudy,
    predictor: Predictor,
    texts: Sequence[Text],
    expected_B: np.ndarray,
    *,
    mode: Mode,
    repeats: int,
    timed_texts: int,
    baselines: Mapping[str, Predictor],
) -> ExitStudy:
    """The study with its table's speeds and the baselines timed in turns; what is not told here is as in `study`.

    Args:
      baselines: other models with the same labels, by name; each counts at its full depth.
      timed_texts: how many texts are timed, spread evenly; 0: all.
    """
    choices: list[tuple[Predictor, Choice]] = [(predictor, (mode, point.speed)) for point in made.table]
    choices += [(baseline, FULL_DEPTH) for baseline in baselines.values()]
    timed, measured = _measured(predictor, choices, texts, repeats=repeats, timed_texts=timed_texts)
    of_speeds, of_baselines = measured[: len(made.table)], measured[len(made.table) :]
    full_flops = Flops(made.full_depth.paper_flops, made.full_depth.true_flops)
    return dataclasses.replace(
        made,
        mode=mode.value,
        timed_texts=len(timed.texts),
        table=tuple(
            dataclasses.replace(point, measured=spread) for point, spread in zip(made.table, of_speeds, strict=True)
        ),
        baselines=tuple(
            _baseline(name, baseline, texts, expected_B, full_flops, spread)
            for (name, baseline), spread in zip(baselines.items(), of_baselines, strict=True)
        ),
    )


def make_directory(directory: Path) -> None:
    """Make the directory of a study, or find it.

    Raises:
      UserError: it cannot be made.
    """
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


def _point(
    predictor: Predictor,
    exits: ExitAnswers,
    expected_B: np.ndarray,
    lengths_B: np.ndarray,
    full: Flops,
    speed: float,
    *,
    asked: Sequence[bool] | None = None,
) -> SpeedPoint:
    """One speed, beside full depth; `asked` is which exits are paid for, by default the predictor's."""
    config, depth_B = predictor.config, exits.depth_B(speed)
    flops = _flops(config, lengths_B, depth_B, asked=predictor.asked_exits if asked is None else asked)
    return SpeedPoint(
        speed=speed,
        accuracy=exits.accuracy(speed, expected_B),
        leaving=tuple(np.bincount(depth_B, minlength=config.num_layers + 1)[1:].tolist()),
        uncertainty=uncertainty_of_arrivals(exits.uncertainty_LxB, depth_B, asked=predictor.asked_exits),
        paper_flops=flops.paper,
        true_flops=flops.true,
        paper_speedup=full.paper / flops.paper,
        true_speedup=full.true / flops.true,
    )


def _exit_rows(
    predictor: Predictor, exits: ExitAnswers, expected_B: np.ndarray, lengths_B: np.ndarray, full: Flops
) -> Sequence[ExitRow]:
    rows = []
    for layer in np.flatnonzero(predictor.asked_exits) + 1:
        label_B, uncertainty_B = exits.label_LxB[layer - 1], exits.uncertainty_LxB[layer - 1]
        right_B = label_B == expected_B
        flops = _flops(predictor.config, lengths_B, np.full(len(right_B), layer), asked=predictor.asked_exits)
        rows.append(
            ExitRow(
                layer=int(layer),
                accuracy=float(right_B.mean()),
                agreement=float((label_B == exits.label_LxB[-1]).mean()),
                mean_uncertainty=float(uncertainty_B.mean()),
                paper_speedup=full.paper / flops.paper,
                bins=uncertainty_bins(uncertainty_B, right_B),
            )
        )
    return rows


def _baseline(
    name: str, baseline: Predictor, texts: Sequence[Text], expected_B: np.ndarray, full: Flops, measured: Spread
) -> BaselineRow:
    """A baseline at its full depth, beside `full`, what the studied model spends at its own."""
    plan = baseline.plan(texts)
    found = answer(baseline, plan, FULL_DEPTH)
    flops = _full_depth_flops(baseline, plan.padded_lengths)
    return BaselineRow(
        name=name,
        layers=baseline.config.num_layers,
        accuracy=float((found.probabilities_BxN.argmax(-1) == expected_B).mean()),
        paper_flops=flops.paper,
        paper_speedup=full.paper / flops.paper,
        true_speedup=full.true / flops.true,
        measured=measured,
    )


def _full_depth_flops(predictor: Predictor, lengths_B: np.ndarray) -> Flops:
    config = predictor.config
    return _flops(config, lengths_B, np.full(len(lengths_B), config.num_layers), asked=only_the_last(config))


def _flops(config: BertConfig, lengths_B: np.ndarray, depth_B: np.ndarray, *, asked: Sequence[bool]) -> Flops:
    total = functools.partial(total_flops, config=config, lengths=lengths_B, executed_layers=depth_B, asked=asked)
    return Flops(total(Count.PAPER) / len(depth_B), total(Count.TRUE) / len(depth_B))
