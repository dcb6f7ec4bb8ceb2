"""What a model's exits know of some labelled texts: the paper's figures and table, with the time that it leaves out.

Shapes in names: B texts, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.config import BATCH_TOKENS, Mode, StudyConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import FULL_DEPTH, Choice, TimedCase, answer, timed_case
from fastbert_jax.inference.exit_outputs import CURVE, AskedTexts, full_depth_flops
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.provenance import provenance
from fastbert_jax.inference.timing import evenly, interleaved_times, speedups_over_first
from fastbert_jax.report import study_plots, study_tables
from fastbert_jax.report.exit_study import BaselineRow, ExitStudy
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids
from fastbert_jax.text.sources import read_examples


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
    expected_B = label_ids(examples, predictor.labels, remedy="fix the row, or study a model that knows this label")
    asked = AskedTexts.of(predictor, [example.text for example in examples], expected_B)
    made = timed_study(
        study(asked, name=config.name or f"{config.model} on {config.data}", speeds=config.speeds),
        asked,
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


def study(asked: AskedTexts, *, name: str, speeds: Sequence[float]) -> ExitStudy:
    """What a model's exits know of some texts; nothing is timed.

    Args:
      speeds: rising thresholds above 0, for the table.
    """
    predictor = asked.predictor
    return ExitStudy(
        name=name,
        texts=len(asked.texts),
        classes=predictor.config.num_classes,
        layers=predictor.config.num_layers,
        exits=tuple(asked.exit_row(layer) for layer in asked.asked_layers()),
        full_depth=asked.full_depth(),
        table=tuple(asked.point(speed) for speed in speeds),
        curve=tuple(asked.point(speed) for speed in CURVE),
        origin=dataclasses.asdict(provenance()),
    )


def timed_study(
    made: ExitStudy,
    asked: AskedTexts,
    *,
    mode: Mode,
    repeats: int,
    timed_texts: int,
    baselines: Mapping[str, Predictor],
) -> ExitStudy:
    """The study of these texts, with its table's speeds and the baselines timed in turns.

    Args:
      baselines: other models with the same labels, by name; each counts at its full depth.
      timed_texts: how many texts are timed, spread evenly; 0: all.
    """
    choices: list[tuple[Predictor, Choice]] = [(asked.predictor, (mode, point.speed)) for point in made.table]
    choices += [(baseline, FULL_DEPTH) for baseline in baselines.values()]
    timed, measured = _measured(asked.predictor, choices, asked.texts, repeats=repeats, timed_texts=timed_texts)
    of_speeds, of_baselines = measured[: len(made.table)], measured[len(made.table) :]
    return dataclasses.replace(
        made,
        mode=mode.value,
        timed_texts=len(timed.texts),
        table=tuple(
            dataclasses.replace(point, measured=spread) for point, spread in zip(made.table, of_speeds, strict=True)
        ),
        baselines=tuple(
            _baseline(name, baseline, asked, spread)
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
    runs = [functools.partial(answer, cases[one].predictor, cases[one].plan, choice) for one, choice in turns]
    with progress_bar("study", total=len(runs) * (repeats + 1), unit="passes") as advance:
        for run in runs:  # the pass that compiles
            run()
            advance(1, "")
        times = interleaved_times(runs, repeats, on_run=lambda: advance(1, ""))
    return cases[predictor], [Spread.of(ratios) for ratios in speedups_over_first(times)]


def _baseline(name: str, baseline: Predictor, asked: AskedTexts, measured: Spread) -> BaselineRow:
    """A baseline at its full depth, beside what the studied model spends at its own."""
    plan = baseline.plan(asked.texts)
    found = answer(baseline, plan, FULL_DEPTH)
    full, flops = asked.full_flops, full_depth_flops(baseline.config, plan.padded_lengths)
    return BaselineRow(
        name=name,
        layers=baseline.config.num_layers,
        accuracy=float((found.probabilities_BxN.argmax(-1) == asked.expected_B).mean()),
        paper_flops=flops.paper,
        paper_speedup=full.paper / flops.paper,
        true_speedup=full.true / flops.true,
        measured=measured,
    )
