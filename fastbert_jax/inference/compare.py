"""What early exit buys: every mode and speed against full depth, in accuracy, FLOPs and wall-clock time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from fastbert_jax.config import EvaluateConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines import Answers
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import PlannedBatch, Predictor
from fastbert_jax.report.compare import Comparison, ComparisonRow
from fastbert_jax.report.flops import Count, speedup
from fastbert_jax.report.metrics import Spread, accuracy
from fastbert_jax.text.examples import Text

Choice = tuple[Mode | None, float]
"""A mode and a speed; no mode: full depth, which is the same program in all of them."""
FULL_DEPTH: Choice = (None, 0.0)


def compare(
    predictor: Predictor,
    texts: Sequence[Text],
    label_ids: np.ndarray,
    *,
    evaluate: EvaluateConfig,
    baseline_accuracy: float | None = None,
    timed_texts: int = 512,
) -> Comparison:
    """Measure every mode at every speed.

    Accuracy, depth and FLOPs are over all texts, from one pass that asks every exit. Times are over `timed_texts` of
    them, spread evenly, whose answers are checked against that pass.

    Args:
      label_ids: int `[texts]`, indices into the predictor's labels.
      baseline_accuracy: to show beside ours.

    Raises:
      UserError: no texts.
    """
    if not len(texts):
        raise UserError("compare: expected at least one text, found none")
    speeds = [speed for speed in evaluate.speeds if speed > 0]
    choices: list[Choice] = [FULL_DEPTH, *((mode, speed) for mode in evaluate.modes for speed in speeds)]
    plan = predictor.plan(texts, batch_size=evaluate.batch_size)
    exits = AllExits(*predictor.all_exits(plan))
    timed = np.unique(np.linspace(0, len(texts) - 1, min(timed_texts, len(texts))).astype(int))
    timed_plan = predictor.plan([texts[i] for i in timed], batch_size=evaluate.batch_size)

    disagreements = 0
    for mode, speed in choices:  # the pass that compiles
        answers = answer(predictor, timed_plan, (mode, speed))
        disagreements += exits.disagreements(answers, speed, timed)
    times = interleaved_times(
        [lambda choice=choice: answer(predictor, timed_plan, choice) for choice in choices], evaluate.repeats
    )

    lengths = padded_lengths(plan)
    rows = []
    for (mode, speed), seconds in zip(choices, times, strict=True):
        depths = exits.depths(speed)
        spent = np.full_like(depths, predictor.config.num_layers) if mode is Mode.MASKED else depths
        students = mode is not None
        rows.append(
            ComparisonRow(
                mode=mode.value if mode else "full depth",
                speed=speed,
                accuracy=accuracy(exits.label_ids(speed), label_ids),
                mean_depth=float(depths.mean()),
                paper_speedup=speedup(Count.PAPER, predictor.config, lengths, depths, students_evaluated=students),
                true_speedup=speedup(Count.TRUE, predictor.config, lengths, spent, students_evaluated=students),
                speedup=Spread.of([full / own for full, own in zip(times[0], seconds, strict=True)]),
                timed_depth=float(depths[timed].mean()),
                layers=predictor.config.num_layers,
            )
        )
    return Comparison(
        rows=tuple(rows),
        layers=predictor.config.num_layers,
        texts=len(texts),
        timed_texts=len(timed),
        batch_size=evaluate.batch_size,
        repeats=evaluate.repeats,
        noise=Spread.of(times[0]).relative,
        disagreements=disagreements,
        device=jax.devices()[0].device_kind,
        baseline_accuracy=baseline_accuracy,
    )


class AllExits:
    """What every exit says of every text, and so what any speed gives."""

    def __init__(self, probabilities: np.ndarray, uncertainty: np.ndarray) -> None:
        """Probabilities `[texts, L, N]` and uncertainties `[texts, L]`."""
        self._label_ids = probabilities.argmax(-1)
        self.uncertainty = uncertainty

    def depths(self, speed: float) -> np.ndarray:
        """Executed layers of each text, 1..L."""
        return exit_indices(self.uncertainty.T, speed) + 1

    def label_ids(self, speed: float) -> np.ndarray:
        """The answer to each text."""
        return np.take_along_axis(self._label_ids, self.depths(speed)[:, None] - 1, axis=1)[:, 0]

    def disagreements(self, answers: Answers, speed: float, texts: np.ndarray) -> int:
        """How many answers of an engine to `texts` have another label or depth."""
        same_label = answers.probabilities_BxN.argmax(-1) == self.label_ids(speed)[texts]
        same_depth = answers.exit_layer_B == self.depths(speed)[texts]
        return int((~(same_label & same_depth)).sum())


def answer(predictor: Predictor, plan: Sequence[PlannedBatch], choice: Choice) -> Answers:
    """The answers of one mode at one speed."""
    mode, speed = choice
    return predictor.answers(plan, speed=speed, mode=mode or Mode.MASKED)


def interleaved_times(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of every run in every repeat, `[runs][repeats]`.

    All runs take turns, so that what else the machine does falls on all of them alike.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, seconds in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return times


def padded_lengths(plan: Sequence[PlannedBatch]) -> np.ndarray:
    """The length that each text of a plan is padded to, int `[texts]`, in the texts' order."""
    lengths = np.zeros(sum(len(planned.texts) for planned in plan), int)
    for planned in plan:
        lengths[planned.texts] = planned.batch.text_BxS.shape[1]
    return lengths
