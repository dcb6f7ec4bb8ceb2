"""The compare command: every mode, speed and batch size against full depth, in accuracy, FLOPs and trusted times."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fastbert_jax.atomic_files import check_place, unless_refused, user_path, write_text
from fastbert_jax.config import CompareConfig, MeasureConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines.engine import Results
from fastbert_jax.inference.exit_outputs import CURVE, EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.plan import BatchedTexts, device_sizes
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.report_page import DESCRIPTION, mislabelled, page_values
from fastbert_jax.log import info, progress_bar
from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow, Provenance, SpeedPoint
from fastbert_jax.report.tables import (
    MislabelledText,
    curve_csv,
    mislabelled_csv,
    ranked,
    render_markdown,
    render_page,
    speeds_csv,
    texts_to_check,
)
from fastbert_jax.text.labelled_data import grouped, known_examples, label_ids, tfidf_svm_right, without_labels
from fastbert_jax.text.sources import read_examples
from fastbert_jax.version import VERSION, commit

EARLY = 20.0
"""Seconds of measuring after which the rest is estimated, if the first repeat takes longer."""
LONG = 30.0
"""Seconds that are left and worth a word."""
TIMED_BATCHES = 128
"""Small batch sizes are timed on fewer texts, so that they make no more batches than this: batches of 1 take long."""


class Candidate(NamedTuple):
    """A row of the table: a model, how it answers, and the numbers that need no clock."""

    name: str
    evaluated: EvaluatedTexts
    mode: Mode
    point: SpeedPoint


class TimedRun(NamedTuple):
    """A candidate on the texts that it is timed on at one batch size."""

    candidate: Candidate
    predictor: Predictor
    """With engines of its own, which adapt to this batch size alone."""
    texts: np.ndarray
    """int, indices into all texts."""
    plan: BatchedTexts


def compare(
    evaluated: EvaluatedTexts,
    *,
    measure: MeasureConfig,
    baseline_right_B: np.ndarray | None = None,
    timed_texts: int = 512,
    baselines: Mapping[str, EvaluatedTexts] | None = None,
) -> Comparison:
    """Measure every mode at every speed and batch size.

    Accuracy, depth and FLOPs are of all texts, from the pass that asked every exit. Times are of `timed_texts` of
    them, spread evenly, whose answers are checked against that pass; small batch sizes take fewer, see `TIMED_BATCHES`.

    Args:
      baseline_right_B: bool, the texts that TF-IDF and a linear SVM answer correctly.
      timed_texts: 0 for all, at every batch size.
      baselines: other models on the same texts, by name; each is measured at its full depth.
    """
    candidates = list(_candidates(evaluated, measure, baselines or {}))
    batch_tokens = measure.batch_tokens or device_sizes().batch_tokens
    sizes = [
        timed_runs(candidates, batch_size=size, batch_tokens=batch_tokens, timed_texts=timed_texts)
        for size in measure.sizes
    ]
    times, differing = timed(sizes, repeats=measure.repeats)
    speeds = {one.point.speed for one in candidates if one.evaluated is evaluated} - {0.0}
    shown = evaluated.predictor.default_speed
    baseline: dict[str, Any] = {}
    if baseline_right_B is not None:
        gained, lost = evaluated.gained_and_lost(baseline_right_B)
        accuracy = float(baseline_right_B.mean())
        baseline = {"baseline_accuracy": accuracy, "baseline_gained": gained, "baseline_lost": lost}
    return Comparison(
        batch_sizes=tuple(
            _batch_size(runs, seconds, others=len(baselines or {}), batch_size=size, batch_tokens=batch_tokens)
            for size, runs, seconds in zip(measure.sizes, sizes, times, strict=True)
        ),
        layers=evaluated.layers,
        texts=len(evaluated.texts),
        repeats=measure.repeats,
        disagreements=differing,
        origin=provenance(),
        **baseline,
        truncated_texts=evaluated.truncated_texts,
        exits=tuple(evaluated.exit_row(layer) for layer in evaluated.asked_layers),
        curve=tuple(evaluated.at(speed) for speed in CURVE),
        recommended=evaluated.recommended(),
        shown_speed=shown,
        answers=tuple(evaluated.answers_at(speed) for speed in sorted({0.0, shown, *speeds})),
    )


def _candidates(
    evaluated: EvaluatedTexts, measure: MeasureConfig, others: Mapping[str, EvaluatedTexts]
) -> Iterator[Candidate]:
    """Full depth, then every mode at every speed, then other models at their full depth."""
    full = evaluated.full_depth()
    yield Candidate("full depth", evaluated, Mode.MASKED, full)
    speeds = dict.fromkeys(speed for speed in measure.speeds if speed > 0)
    for mode, speed in itertools.product(measure.modes, speeds):
        yield Candidate(mode.value, evaluated, mode, evaluated.at(speed, masked=mode is Mode.MASKED))
    for name, other in others.items():
        point = other.full_depth()
        gained, lost = evaluated.gained_and_lost(other.outputs.label_LxB[-1] == other.expected_B)
        point = dataclasses.replace(
            point,
            gained=gained,
            lost=lost,
            paper_speedup=full.paper_flops / point.paper_flops,
            true_speedup=full.true_flops / point.true_flops,
        )
        yield Candidate(name, other, Mode.MASKED, point)


def timed_runs(
    candidates: Sequence[Candidate], *, batch_size: int, batch_tokens: int, timed_texts: int
) -> list[TimedRun]:
    """The runs of one batch size in their order; full depth, the first candidate, is the last again."""
    total = len(candidates[0].evaluated.texts)
    # A power of two, as the default of timed_texts is, so that the fewer texts are a part of the others.
    most = TIMED_BATCHES * batch_size
    chosen = evenly(total, min(timed_texts, most) if most else timed_texts)
    runs: dict[EvaluatedTexts, tuple[Predictor, np.ndarray, BatchedTexts]] = {}
    for evaluated in dict.fromkeys(one.evaluated for one in candidates):
        texts = [evaluated.texts[i] for i in chosen]
        plan = evaluated.predictor.plan(texts, batch_size=batch_size, batch_tokens=batch_tokens)
        runs[evaluated] = evaluated.predictor.with_new_engines(), chosen, plan
    return [TimedRun(one, *runs[one.evaluated]) for one in (*candidates, candidates[0])]


def timed(sizes: Sequence[Sequence[TimedRun]], *, repeats: int) -> tuple[list[list[list[float]]], int]:
    """Seconds `[sizes][runs][repeats]`, and how many answers differ from those of the pass that asks every exit.

    All batch sizes take turns within a repeat; a size's own runs follow each other, so that a speedup rests on times
    that were measured close together.
    """
    runs = list(itertools.chain.from_iterable(sizes))
    compiling = list(itertools.chain.from_iterable(size[:-1] for size in sizes))
    differing = 0
    with progress_bar("compare", total=len(compiling) + len(runs) * repeats, unit="passes") as advance:
        advance(0, "compiling")
        for run in compiling:
            differing += disagreements(answer(run), run)
            advance(1, "compiling")
        advance(0, "measuring")
        on_run = _telling_what_is_left(advance, len(runs), repeats)
        times = interleaved_times([functools.partial(answer, run) for run in runs], repeats, on_run=on_run)
    rest = iter(times)
    return [list(itertools.islice(rest, len(size))) for size in sizes], differing


def _telling_what_is_left(advance: Callable[[int, str], None], runs: int, repeats: int) -> Callable[[], None]:
    """What is called after each pass; after the first repeat or `EARLY` seconds it says how long the rest takes."""
    begun, passed, was_told = time.monotonic(), 0, False

    def on_run() -> None:
        nonlocal passed, was_told
        passed += 1
        advance(1, "measuring")
        seconds, left = time.monotonic() - begun, runs * repeats - passed
        if not was_told and (passed == runs or seconds > EARLY):
            was_told = True
            if (seconds_left := seconds / passed * left) >= LONG:
                advance(0, f"measuring, about {max(round(seconds_left / 60), 1)} min left")

    return on_run


def passes(measure: MeasureConfig) -> int:
    """How many passes over texts `compare` makes without other models: one to compile, then the repeats."""
    rows = 1 + len(measure.modes) * len({speed for speed in measure.speeds if speed > 0})
    return len(measure.sizes) * (rows + (rows + 1) * measure.repeats)


def answer(run: TimedRun) -> Results:
    """The answers of one candidate."""
    return run.predictor.answers(run.plan, speed=run.candidate.point.speed, mode=run.candidate.mode)


def disagreements(found: Results, run: TimedRun) -> int:
    """How many answers of an engine have another label or depth than the pass that asks every exit."""
    outputs, speed = run.candidate.evaluated.outputs, run.candidate.point.speed
    same_label = found.probabilities_BxN.argmax(-1) == outputs.labels_B(speed)[run.texts]
    same_depth = found.exit_layer_B == outputs.depth_B(speed)[run.texts]
    return int((~(same_label & same_depth)).sum())


def _batch_size(
    runs: Sequence[TimedRun], times: Sequence[Sequence[float]], *, others: int, batch_size: int, batch_tokens: int
) -> BatchSizeComparison:
    """One batch size.

    Args:
      times: seconds `[runs][repeats]`.
      others: how many of the candidates, the last ones, are other models.
    """
    itself = [one / other for one, other in zip(times[0], times[-1], strict=True)]
    speedups = [itself, *speedups_over_first(times)]
    rows = [
        ComparisonRow(
            **vars(run.candidate.point),
            mode=run.candidate.name,
            seconds=tuple(seconds),
            speedups=tuple(speedup),
            timed_depth=float(run.candidate.evaluated.outputs.depth_B(run.candidate.point.speed)[run.texts].mean()),
            layers=runs[0].candidate.evaluated.layers,
        )
        for run, seconds, speedup in zip(runs[:-1], times[:-1], speedups, strict=True)
    ]
    return BatchSizeComparison(
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        rows=tuple(rows[: len(rows) - others]),
        baselines=tuple(rows[len(rows) - others :]),
        seconds_again=tuple(times[-1]),
        timed_texts=len(runs[0].texts),
        timed_batches=len(runs[0].plan.batches),
        padding_share=runs[0].plan.padding_share,
    )


def evenly(total: int, count: int) -> np.ndarray:
    """`count` of `total` indices, spread evenly, rising; all of them when `count` is 0 or more than there are."""
    if count == 0 or count >= total:
        return np.arange(total)
    return np.arange(count) * total // count


def interleaved_times(
    runs: Sequence[Callable[[], object]], repeats: int, on_run: Callable[[], None] | None = None
) -> list[list[float]]:
    """Seconds of every run in every repeat, `[runs][repeats]`.

    All runs take turns, and every second repeat goes through them backwards, so that other work of the machine affects
    all of them alike. `on_run` is called after each, untimed.
    """
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats):
        turns = list(zip(runs, times, strict=True))
        for run, seconds in turns if repeat % 2 == 0 else reversed(turns):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            if on_run:
                on_run()
    return times


def speedups_over_first(times: Sequence[Sequence[float]]) -> list[list[float]]:
    """How many times faster than the first every run between the first and the last is, `[runs - 2][repeats]`.

    The first run's time at the moment of another run is interpolated between its two measurements, one on either side
    of the others: a machine that slows down or speeds up steadily changes no speedup.

    Args:
      times: of `interleaved_times`, where the last run is the first once more.
    """
    seconds_TxR = np.asarray(times)
    first_R, last_R = seconds_TxR[0], seconds_TxR[-1]
    middle_TxR = np.cumsum(seconds_TxR, 0) - seconds_TxR / 2
    share_TxR = (middle_TxR - middle_TxR[0]) / (middle_TxR[-1] - middle_TxR[0])
    speedup_TxR: np.ndarray = (first_R + share_TxR * (last_R - first_R)) / seconds_TxR
    return [ratio_R.tolist() for ratio_R in speedup_TxR[1:-1]]


def provenance() -> Provenance:
    """Where the numbers of this process come from: the command, the code and the machine."""
    device = jax.devices()[0]
    module = sys.modules["__main__"].__spec__
    started_as = sys.argv[:1] if module is None else ["-m", module.name]
    return Provenance(
        command=shlex.join(["python", *started_as, *sys.argv[1:]]),
        commit=commit(),
        date=datetime.date.today().isoformat(),
        packages={
            "fastbert_jax": VERSION,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": platform.python_version(),
        },
        device=device.device_kind,
        platform=device.platform,
        machine=f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
    )


class Compared(NamedTuple):
    """What `infer.py compare` has measured."""

    comparison: Comparison
    page: str
    """The report; empty where none is written."""
    mislabelled: list[MislabelledText]
    """Ranked."""


def compare_data(config: CompareConfig) -> Compared:
    """Measure what `infer.py compare` asks for. `save` writes the files.

    Raises:
      UserError: no model, no data, a label that the model does not know, other labels in a baseline, or a file that
        cannot be written, which is checked before all else, so that no measurement is lost.
    """
    check_places(config)
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    baselines = baseline_models(config.baselines, predictor.labels)
    test = read_examples(
        config.data, config, need_label=True, role="test", trained=predictor.reading, keep=config.by, option="--by"
    )
    test.tell()
    left, words = without_labels(test, predictor.excluded_labels)
    if words:
        info(words)
    known = known_examples(left, predictor.labels, config)
    examples = [known[i] for i in evenly(len(known), config.limit)]
    skipped_rows = len(test.rejected) + len(test.examples) - len(known)
    expected_B = label_ids(examples, predictor.labels, remedy="fix the row, or compare a model that knows this label")
    groups = grouped(examples, config.by, option="--by")
    baseline_right_B = None
    if config.baseline:
        train = read_examples(config.baseline, config, need_label=True, role="train", trained=predictor.reading)
        train, _ = without_labels(train, predictor.excluded_labels)
        if not any(example.label in predictor.labels for example in train.examples):
            label_ids(train.examples, predictor.labels)  # says that no label is the model's
        baseline_right_B = tfidf_svm_right(train.examples, examples)
        skipped_rows += len(train.rejected)
    texts = [example.text for example in examples]
    evaluate = functools.partial(EvaluatedTexts.of, batch_tokens=config.batch_tokens)
    evaluated = evaluate(predictor, texts, expected_B, groups=groups)
    comparison = compare(
        evaluated,
        measure=config,
        baseline_right_B=baseline_right_B,
        timed_texts=config.timed_texts,
        baselines={name: evaluate(model, texts, expected_B) for name, model in baselines.items()},
    )
    comparison = dataclasses.replace(comparison, skipped_rows=skipped_rows)
    contradicted = ranked(mislabelled(evaluated, [example.where for example in examples]))
    page = ""
    if config.report:
        values = page_values(evaluated, comparison)
        page = render_page(comparison, values, model=config.model, data=config.data, mislabelled=contradicted)
    return Compared(comparison, page, contradicted)


def baseline_models(directories: Sequence[str], labels: Sequence[str]) -> dict[str, Predictor]:
    """Other models by their directories.

    Raises:
      UserError: no model, or one with other labels.
    """
    found = {path: load(path) for path in directories}
    for path, baseline in found.items():
        baseline.require_exits()
        if baseline.labels != tuple(labels):
            raise UserError(f"--baselines {path}: expected the labels of --model, {labels}, found {baseline.labels}")
    return found


def places(config: CompareConfig) -> list[tuple[str, Path]]:
    """What is written where: `numbers`, `tables`, `curve`, `speeds`, `report` or `texts to check`, and a path."""
    output = user_path(config.output)
    found = [] if config.json in ("", "-") else [("numbers", user_path(config.json))]
    if config.output:
        names = {"numbers": "comparison.json", "tables": "comparison.md", "curve": "curve.csv", "speeds": "speeds.csv"}
        found += [(what, output / name) for what, name in names.items()]
    if config.report:
        found.append(("report", output / user_path(config.report)))
    if config.mislabelled:
        found.append(("texts to check", output / user_path(config.mislabelled)))
    return found


def check_places(config: CompareConfig) -> None:
    """Make the output directory, and raise `UserError` for a file that cannot be written."""
    if config.output:
        with unless_refused(f"--output {config.output}", "make the directory"):
            user_path(config.output).mkdir(parents=True, exist_ok=True)
    for what, path in places(config):
        remedy = "; name another file with --report, or none with --report ''" if what == "report" else ""
        with unless_refused(path, f"write the {what}", remedy=remedy):
            if not path.parent.is_dir():
                raise OSError(f"there is no directory {path.parent}")
            check_place(path)


def save(config: CompareConfig, compared: Compared) -> str:
    """Write the files that `config` names; what a user can open, in words. A failure does not stop the other files.

    Raises:
      UserError: a file cannot be written.
    """
    contents = {
        "numbers": json.dumps(compared.comparison.to_json(), indent=2, ensure_ascii=False) + "\n",
        "tables": render_markdown(compared.comparison, f"{config.model} on {config.data}"),
        "curve": curve_csv(compared.comparison),
        "speeds": speeds_csv(compared.comparison),
        "report": compared.page,
        "texts to check": mislabelled_csv(compared.mislabelled),
    }
    failed = []
    for what, path in places(config):
        try:
            write_text(path, contents[what])
        except OSError as error:
            failed.append(f"{path}: cannot write the {what}: {error.strerror}")
    if failed:
        raise UserError("\n".join(failed))
    files = "comparison.md (tables), comparison.json (all numbers), curve.csv and speeds.csv"
    written = [f"{config.output}: {files}"] if config.output else []
    words = {"report": DESCRIPTION, "texts to check": texts_to_check(compared.mislabelled)}
    written += [f"{path}: {words[what]}" for what, path in places(config) if what in words]
    return "\n".join(written)
