"""What early exit buys: every mode and speed against full depth, in accuracy, FLOPs and wall-clock time."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from fastbert_jax.config import BertConfig, CompareConfig, EvaluateConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engine import Answers
from fastbert_jax.inference.exit_answers import ExitAnswers
from fastbert_jax.inference.plan import Plan
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.timing import evenly, interleaved_times
from fastbert_jax.report.comparison import Comparison, ComparisonRow
from fastbert_jax.report.flops import Count, only_the_last, speedup
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.baseline import tfidf_svm_accuracy
from fastbert_jax.text.examples import Text
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tasks import label_ids
from fastbert_jax.whole_files import write_json

Choice = tuple[Mode | None, float]
"""A mode and a speed; no mode: full depth, which is the same program in all of them."""
FULL_DEPTH: Choice = (None, 0.0)


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
    """Measure every mode at every speed.

    Accuracy, depth and FLOPs are over all texts, from one pass that asks every exit. Times are over `timed_texts` of
    them, spread evenly, whose answers are checked against that pass.

    Args:
      expected: int `[texts]`, the right answers as indices into the predictor's labels.
      baseline_accuracy: to show beside ours.
      timed_texts: 0 for all.

    Raises:
      UserError: no texts.
    """
    if not len(texts):
        raise UserError("compare: expected at least one text, found none")
    speeds = [speed for speed in evaluate.speeds if speed > 0]
    choices: list[Choice] = [FULL_DEPTH, *((mode, speed) for mode in evaluate.modes for speed in speeds)]
    plan_of = functools.partial(predictor.plan, batch_size=evaluate.batch_size, batch_tokens=evaluate.batch_tokens)
    plan = plan_of(texts)
    exits = ExitAnswers.of(*predictor.all_exits(plan))
    timed = evenly(len(texts), timed_texts)
    timed_plan = plan_of([texts[i] for i in timed])

    runs = [functools.partial(answer, predictor, timed_plan, choice) for choice in choices]
    differing = 0
    with progress_bar("compare", total=len(choices) * (1 + evaluate.repeats), unit="passes") as advance:
        for run, (_, speed) in zip(runs, choices, strict=True):  # the pass that compiles
            differing += disagreements(run(), exits, speed, timed)
            advance(1, "")
        times = interleaved_times(runs, evaluate.repeats, on_run=lambda: advance(1, ""))
    return Comparison(
        rows=tuple(
            comparison_rows(
                predictor.config,
                choices,
                times,
                exits,
                expected,
                asked=predictor.asked_exits,
                lengths=plan.padded_lengths,
                timed=timed,
            )
        ),
        layers=predictor.config.num_layers,
        texts=len(texts),
        timed_texts=len(timed),
        batches=f"{evaluate.batch_size} texts" if evaluate.batch_size else f"{evaluate.batch_tokens} tokens",
        padding_share=timed_plan.padding_share,
        repeats=evaluate.repeats,
        noise=Spread.of(times[0]).relative,
        disagreements=differing,
        device=jax.devices()[0].device_kind,
        baseline_accuracy=baseline_accuracy,
        truncated_texts=plan.truncated_texts,
    )


def comparison_rows(
    config: BertConfig,
    choices: Sequence[Choice],
    times: Sequence[Sequence[float]],
    exits: ExitAnswers,
    expected: np.ndarray,
    *,
    asked: Sequence[bool],
    lengths: np.ndarray,
    timed: np.ndarray,
) -> Iterator[ComparisonRow]:
    """The row of every choice.

    Args:
      times: seconds `[choices][repeats]`, full depth first.
      expected: int `[texts]`, the right answers.
      asked: for each layer, whether its exit is asked.
      lengths: int `[texts]`, what each text is padded to.
      timed: which texts were timed.
    """
    for (mode, speed), seconds in zip(choices, times, strict=True):
        depths = exits.depth_B(speed)
        spent = np.full_like(depths, config.num_layers) if mode is Mode.MASKED else depths
        asked_here = asked if mode else only_the_last(config)
        yield ComparisonRow(
            mode=mode.value if mode else "full depth",
            speed=speed,
            accuracy=exits.accuracy(speed, expected),
            mean_depth=float(depths.mean()),
            paper_speedup=speedup(Count.PAPER, config, lengths, depths, asked=asked_here),
            true_speedup=speedup(Count.TRUE, config, lengths, spent, asked=None if mode is Mode.MASKED else asked_here),
            speedup=Spread.of([full / own for full, own in zip(times[0], seconds, strict=True)]),
            timed_depth=float(depths[timed].mean()),
            layers=config.num_layers,
        )


def disagreements(found: Answers, exits: ExitAnswers, speed: float, texts: np.ndarray) -> int:
    """How many answers of an engine to `texts` have another label or depth than the pass that asks every exit."""
    same_label = found.probabilities_BxN.argmax(-1) == exits.answer_B(speed)[texts]
    same_depth = found.exit_layer_B == exits.depth_B(speed)[texts]
    return int((~(same_label & same_depth)).sum())


def answer(predictor: Predictor, plan: Plan, choice: Choice) -> Answers:
    """The answers of one mode at one speed."""
    mode, speed = choice
    return predictor.answers(plan, speed=speed, mode=mode or Mode.MASKED)
