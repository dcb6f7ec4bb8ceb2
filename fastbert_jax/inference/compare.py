"""What early exit buys: every mode, speed and batch size against full depth, in accuracy, FLOPs and time."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastbert_jax.config import EvaluateConfig, Mode
from fastbert_jax.inference.engines.engine import Answers
from fastbert_jax.inference.exit_answers import ExitAnswers
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.plan import Plan
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.provenance import provenance
from fastbert_jax.inference.timing import evenly, interleaved_times, speedups_over_first
from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow
from fastbert_jax.report.flops import Count, only_the_last, speedup, total_flops
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.examples import Text

Choice = tuple[Mode | None, float]
"""A mode and a speed; no mode: full depth, which is the same program in all of them."""
FULL_DEPTH: Choice = (None, 0.0)
TIMED_BATCHES = 128
"""Small batch sizes are timed on fewer texts, so that they make no more batches than this: batches of 1 take long."""


class TimedCase(NamedTuple):
    """The texts that a batch size is timed on."""

    predictor: Predictor
    """With engines of its own, so that no batch size is run in what suits another."""
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


def compare(
    asked: AskedTexts,
    *,
    evaluate: EvaluateConfig,
    baseline_accuracy: float | None = None,
    timed_texts: int = 512,
) -> Comparison:
    """Measure every mode at every speed and batch size.

    Accuracy, depth and FLOPs are over all texts, from the pass that asked every exit. Times are over `timed_texts` of
    them, spread evenly, whose answers are checked against that pass; small batch sizes take fewer, see `TIMED_BATCHES`.

    Args:
      baseline_accuracy: to show beside ours.
      timed_texts: 0 for all, at every batch size.
    """
    predictor, texts, exits = asked.predictor, asked.texts, asked.exits
    speeds = dict.fromkeys(speed for speed in evaluate.speeds if speed > 0)
    choices: list[Choice] = [FULL_DEPTH, *((mode, speed) for mode in evaluate.modes for speed in speeds)]
    cases = [
        timed_case(predictor, texts, batch_size=size, batch_tokens=evaluate.batch_tokens, timed_texts=timed_texts)
        for size in evaluate.sizes
    ]
    times, differing = measure(cases, choices, exits, repeats=evaluate.repeats)
    qualities = [quality(predictor, choice, exits, asked.expected_B, asked.lengths_B) for choice in choices]
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
        origin=provenance(),
        baseline_accuracy=baseline_accuracy,
        truncated_texts=asked.truncated_texts,
    )


def timed_case(
    predictor: Predictor, texts: Sequence[Text], *, batch_size: int, batch_tokens: int, timed_texts: int
) -> TimedCase:
    """The texts that a batch size is timed on, laid out."""
    # A power of two, as the default of timed_texts is, so that the fewer texts are a part of the others.
    most = TIMED_BATCHES * batch_size
    chosen = evenly(len(texts), min(timed_texts, most) if most else timed_texts)
    plan = predictor.plan([texts[i] for i in chosen], batch_size=batch_size, batch_tokens=batch_tokens)
    return TimedCase(predictor.with_new_engines(), batch_size, chosen, plan)


def measure(
    cases: Sequence[TimedCase], choices: Sequence[Choice], exits: ExitAnswers, *, repeats: int
) -> tuple[list[list[list[float]]], int]:
    """Seconds `[cases][choices and full depth again][repeats]`, and how many answers differ from those of `exits`.

    All batch sizes take turns within a repeat; a size's own runs follow each other, so that a speedup rests on times
    that were taken close together.
    """
    turns = [*choices, FULL_DEPTH]
    runs = [functools.partial(answer, case.predictor, case.plan, choice) for case in cases for choice in turns]
    differing = 0
    with progress_bar("compare", total=len(cases) * len(choices) + len(runs) * repeats, unit="passes") as advance:
        for case, choice in itertools.product(cases, choices):  # the pass that compiles
            differing += disagreements(answer(case.predictor, case.plan, choice), exits, choice[1], case.texts)
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


def disagreements(found: Answers, exits: ExitAnswers, speed: float, texts: np.ndarray) -> int:
    """How many answers of an engine to `texts` have another label or depth than the pass that asks every exit."""
    same_label = found.probabilities_BxN.argmax(-1) == exits.answer_B(speed)[texts]
    same_depth = found.exit_layer_B == exits.depth_B(speed)[texts]
    return int((~(same_label & same_depth)).sum())


def answer(predictor: Predictor, plan: Plan, choice: Choice) -> Answers:
    """The answers of one mode at one speed."""
    mode, speed = choice
    return predictor.answers(plan, speed=speed, mode=mode or Mode.MASKED)
