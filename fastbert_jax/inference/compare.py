"""What early exit buys: every mode, speed and batch size against full depth, in accuracy, FLOPs and time."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fastbert_jax.config import CompareConfig, EvaluateConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines.engine import Answers
from fastbert_jax.inference.exit_answers import ExitAnswers
from fastbert_jax.inference.plan import Plan
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.timing import evenly, interleaved_times, speedups_over_first
from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow, Origin
from fastbert_jax.report.flops import Count, only_the_last, speedup, total_flops
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.baseline import tfidf_svm_accuracy
from fastbert_jax.text.examples import Text
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tasks import label_ids
from fastbert_jax.whole_files import write_json

Choice = tuple[Mode | None, float]
"""A mode and a speed; no mode: full depth, which is the same program in all of them."""
FULL_DEPTH: Choice = (None, 0.0)
TIMED_BATCHES = 128
"""Small batch sizes are timed on fewer texts, so that they make no more batches than this: batches of 1 take long."""


class TimedCase(NamedTuple):
    """The texts that a batch size is timed on."""

    batch_size: int
    texts: np.ndarray
    """int, which of all texts."""
    plan: Plan


class Quality(NamedTuple):
    """What `ComparisonRow` holds beside times."""

    accuracy: float
    mean_depth: float
    paper_flops: int
    true_flops: int
    paper_speedup: float
    true_speedup: float


def compare_spec(config: CompareConfig) -> Comparison:
    """The comparison that `infer.py compare` prints.

    Raises:
      UserError: no model, no data, a label that the model does not know, or no place for the JSON file, which is
        looked for before all else, so that no measurement is lost.
    """
    if config.json:
        require_place(Path(config.json))
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    test = read_examples(config.data, config.reading, need_label=True, role="test")
    examples = [test.examples[i] for i in evenly(len(test.examples), config.limit)]
    skipped_rows = test.skipped
    expected = label_ids(examples, predictor.labels, remedy="fix the row, or compare a model that knows this label")
    baseline_accuracy = None
    if config.baseline:
        train = read_examples(config.baseline, config.reading, need_label=True, role="train")
        baseline_accuracy = tfidf_svm_accuracy(train.examples, examples)
        skipped_rows += train.skipped
    comparison = compare(
        predictor,
        [example.text for example in examples],
        expected,
        evaluate=config.evaluate,
        baseline_accuracy=baseline_accuracy,
        timed_texts=config.timed_texts,
    )
    return dataclasses.replace(comparison, skipped_rows=skipped_rows)


def require_place(path: Path) -> None:
    """Raise `UserError` where no file can be written to `path`."""
    path = path.expanduser()
    found = None
    if path.is_dir():
        found = "a directory"
    elif not path.parent.is_dir():
        found = f"no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        found = f"a directory {path.parent} that may not be written to"
    if found:
        raise UserError(f"{path}: expected a place to write the numbers to, found {found}")


def save_json(path: Path, comparison: Comparison) -> None:
    """Write a comparison's numbers.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        write_json(path.expanduser(), comparison.to_json())
    except OSError as error:
        raise UserError(f"{path}: expected a place to write the numbers to, found: {error.strerror}") from None


def compare(
    predictor: Predictor,
    texts: Sequence[Text],
    expected: np.ndarray,
    *,
    evaluate: EvaluateConfig,
    baseline_accuracy: float | None = None,
    timed_texts: int = 512,
) -> Comparison:
    """Measure every mode at every speed and batch size.

    Accuracy, depth and FLOPs are over all texts, from one pass that asks every exit in batches of `batch_tokens`.
    Times are over `timed_texts` of them, spread evenly, whose answers are checked against that pass; small batch sizes
    take fewer, see `TIMED_BATCHES`.

    Args:
      expected: int `[texts]`, the right answers as indices into the predictor's labels.
      baseline_accuracy: to show beside ours.
      timed_texts: 0 for all, at every batch size.

    Raises:
      UserError: no texts.
    """
    if not len(texts):
        raise UserError("compare: expected at least one text, found none")
    speeds = dict.fromkeys(speed for speed in evaluate.speeds if speed > 0)
    choices: list[Choice] = [FULL_DEPTH, *((mode, speed) for mode in evaluate.modes for speed in speeds)]
    plan = predictor.plan(texts, batch_tokens=evaluate.batch_tokens)
    exits = ExitAnswers.of(*predictor.all_exits(plan))
    cases = [
        timed_case(predictor, texts, batch_size=size, batch_tokens=evaluate.batch_tokens, timed_texts=timed_texts)
        for size in evaluate.sizes
    ]
    times, differing = measure(predictor, cases, choices, exits, repeats=evaluate.repeats)
    qualities = [quality(predictor, choice, exits, expected, plan.padded_lengths) for choice in choices]
    return Comparison(
        batch_sizes=tuple(
            BatchSizeComparison(
                batch_size=case.batch_size,
                batch_tokens=evaluate.batch_tokens,
                rows=tuple(comparison_rows(choices, qualities, own, exits, case.texts)),
                seconds_again=tuple(own[-1]),
                timed_texts=len(case.texts),
                timed_batches=len(case.plan.batches),
                padding_share=case.plan.padding_share,
            )
            for case, own in zip(cases, times, strict=True)
        ),
        layers=predictor.config.num_layers,
        texts=len(texts),
        repeats=evaluate.repeats,
        disagreements=differing,
        origin=origin(),
        baseline_accuracy=baseline_accuracy,
        truncated_texts=plan.truncated_texts,
    )


def timed_case(
    predictor: Predictor, texts: Sequence[Text], *, batch_size: int, batch_tokens: int, timed_texts: int
) -> TimedCase:
    """The texts that a batch size is timed on, laid out."""
    # A power of two, as the default of timed_texts is, so that the fewer texts are a part of the others.
    most = TIMED_BATCHES * batch_size
    chosen = evenly(len(texts), min(timed_texts, most) if most else timed_texts)
    plan = predictor.plan([texts[i] for i in chosen], batch_size=batch_size, batch_tokens=batch_tokens)
    return TimedCase(batch_size, chosen, plan)


def measure(
    predictor: Predictor, cases: Sequence[TimedCase], choices: Sequence[Choice], exits: ExitAnswers, *, repeats: int
) -> tuple[list[list[list[float]]], int]:
    """Seconds `[cases][choices and full depth again][repeats]`, and how many answers differ from those of `exits`.

    All batch sizes take turns within a repeat; a size's own runs follow each other, so that a speedup rests on times
    that were taken close together.
    """
    turns = [*choices, FULL_DEPTH]
    runs = [functools.partial(answer, predictor, case.plan, choice) for case in cases for choice in turns]
    differing = 0
    with progress_bar("compare", total=len(cases) * len(choices) + len(runs) * repeats, unit="passes") as advance:
        for case, choice in itertools.product(cases, choices):  # the pass that compiles
            differing += disagreements(answer(predictor, case.plan, choice), exits, choice[1], case.texts)
            advance(1, "")
        times = interleaved_times(runs, repeats, on_run=lambda: advance(1, ""))
    return [times[start : start + len(turns)] for start in range(0, len(times), len(turns))], differing


def quality(
    predictor: Predictor, choice: Choice, exits: ExitAnswers, expected: np.ndarray, lengths: np.ndarray
) -> Quality:
    """What needs no clock.

    Args:
      expected: int `[texts]`, the right answers.
      lengths: int `[texts]`, what each text is padded to.
    """
    (mode, speed), config = choice, predictor.config
    depths = exits.depth_B(speed)
    spent = np.full_like(depths, config.num_layers) if mode is Mode.MASKED else depths
    asked = predictor.asked_exits if mode else only_the_last(config)
    asked_truly = None if mode is Mode.MASKED else asked
    return Quality(
        accuracy=exits.accuracy(speed, expected),
        mean_depth=float(depths.mean()),
        paper_flops=total_flops(Count.PAPER, config, lengths, depths, asked=asked),
        true_flops=total_flops(Count.TRUE, config, lengths, spent, asked=asked_truly),
        paper_speedup=speedup(Count.PAPER, config, lengths, depths, asked=asked),
        true_speedup=speedup(Count.TRUE, config, lengths, spent, asked=asked_truly),
    )


def comparison_rows(
    choices: Sequence[Choice],
    qualities: Sequence[Quality],
    times: Sequence[Sequence[float]],
    exits: ExitAnswers,
    timed: np.ndarray,
) -> Iterator[ComparisonRow]:
    """The row of every choice at one batch size.

    Args:
      times: seconds `[choices and full depth again][repeats]`, full depth first.
      timed: which texts were timed.
    """
    itself = [one / other for one, other in zip(times[0], times[-1], strict=True)]
    speedups = [itself, *speedups_over_first(times)]
    for (mode, speed), known, seconds, ratios in zip(choices, qualities, times[:-1], speedups, strict=True):
        yield ComparisonRow(
            mode=mode.value if mode else "full depth",
            speed=speed,
            **known._asdict(),
            seconds=tuple(seconds),
            speedups=tuple(ratios),
            timed_depth=float(exits.depth_B(speed)[timed].mean()),
            layers=len(exits.uncertainty_LxB),
        )


def origin() -> Origin:
    """Where the numbers of this process come from."""
    device = jax.devices()[0]
    package = __name__.partition(".")[0]
    return Origin(
        command=shlex.join(["python", *_started_as(), *sys.argv[1:]]),
        date=datetime.date.today().isoformat(),
        packages={
            # A room does not import the package it is in; it is loaded, or this would not run.
            package: sys.modules[package].__version__,
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": platform.python_version(),
        },
        device=device.device_kind,
        platform=device.platform,
        machine=f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
    )


def _started_as() -> list[str]:
    """The script, or `-m` and the module, that this process runs."""
    module = sys.modules["__main__"].__spec__
    return sys.argv[:1] if module is None else ["-m", module.name]


def disagreements(found: Answers, exits: ExitAnswers, speed: float, texts: np.ndarray) -> int:
    """How many answers of an engine to `texts` have another label or depth than the pass that asks every exit."""
    same_label = found.probabilities_BxN.argmax(-1) == exits.answer_B(speed)[texts]
    same_depth = found.exit_layer_B == exits.depth_B(speed)[texts]
    return int((~(same_label & same_depth)).sum())


def answer(predictor: Predictor, plan: Plan, choice: Choice) -> Answers:
    """The answers of one mode at one speed."""
    mode, speed = choice
    return predictor.answers(plan, speed=speed, mode=mode or Mode.MASKED)
