"""The calibrate command: thresholds for a target, with the evidence, stored in the model's directory.

Shapes in names: B texts, L layers.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats

from fastbert_jax.atomic_files import check_place, unless_refused, write_json
from fastbert_jax.config import RECOMMENDED, CalibrateConfig, ExitConfig, Mode
from fastbert_jax.config_yaml import to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.inference.calibration import FILE, Calibration, entries_of
from fastbert_jax.inference.compare import evenly, interleaved_times, speedups_over_first
from fastbert_jax.inference.exit_outputs import ExitOutputs
from fastbert_jax.inference.loading import load, model_directory
from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.labelled_data import known_examples, label_ids, without_labels
from fastbert_jax.text.sources import read_examples

TIMED_TEXTS = 512
SPEEDUP_TRIES = 8
GRID = np.geomspace(1e-4, 1, 200).astype(np.float32)
"""Thresholds to try, rising from almost 0: fixed before the data are seen, as a guarantee requires."""
LAYER_CANDIDATES = 40
"""Thresholds to try for one layer: quantiles of its uncertainties."""
ROUNDS = 3
"""Times that each layer has its turn, at most."""
SPEEDS = (*(thousandths / 1000 for thousandths in range(1, 10)), *(hundredths / 100 for hundredths in range(1, 101)))
"""Speeds that may be recommended, rising: few digits, which are easy to type and to compare."""
RECOMMENDED_DROP = 0.005
"""Accuracy that the recommended speed may lose on dev against full depth: half a point."""


def calibrate(config: CalibrateConfig) -> Calibration:
    """Find the thresholds, and store them beside the model, in place of earlier ones for the same target.

    Raises:
      UserError: no model, no data, a label that the model does not know where the target needs labels, or a speedup
        that cannot be reached.
    """
    path = model_directory(config.model) / FILE
    with unless_refused(path, "write the calibration"):
        check_place(path)
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    need_label = config.max_drop is not None or config.target == RECOMMENDED
    read = read_examples(config.data, config, need_label=need_label, role="dev", trained=predictor.reading)
    read.tell()
    read, words = without_labels(read, predictor.excluded_labels)
    if words:
        info(words)
    examples = known_examples(read, predictor.labels, config) if need_label else read.examples
    expected_B, no_accuracy = None, ""
    try:
        remedy = "fix the row, or calibrate a model that knows it"
        expected_B = label_ids(examples, predictor.labels, remedy=remedy)
    except UserError as error:
        if need_label:
            raise
        no_accuracy = str(error)
    plan_of = functools.partial(predictor.plan, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
    outputs = ExitOutputs.of(predictor, plan_of([example.text for example in examples]))
    timed = plan_of([examples[i].text for i in evenly(len(examples), TIMED_TEXTS)])
    measure = functools.partial(measured_speedup, predictor, timed, mode=config.mode, repeats=config.repeats)
    found, speedup = _thresholds(config, outputs, expected_B, predictor.asked_exits, measure)
    calibration = _measured(
        outputs,
        expected_B,
        np.where(predictor.asked_exits, found, 0),
        target=config.target,
        exits=config.exits,
        data=config.data,
        speedup=speedup,
        confidence=config.confidence if config.agreement is not None else None,
        mode=config.mode.value,
        no_accuracy=no_accuracy,
    )
    _store(path, calibration)
    return calibration


def recommend(predictor: Predictor, outputs: ExitOutputs, expected_B: np.ndarray, *, data: str) -> Calibration:
    """Choose the recommended speed of a model that `load` has loaded, and store it with the model.

    Args:
      outputs: of texts that the model was not trained on, for all exits by entropy.
      expected_B: int, their correct classes.
      data: the texts, in words.

    Raises:
      UserError: the file cannot be written.
    """
    assert predictor.directory is not None and predictor.exits == ExitConfig()
    calibration = _measured(
        outputs,
        expected_B,
        np.where(predictor.asked_exits, recommended_speed(outputs, expected_B), 0),
        target=RECOMMENDED,
        exits=predictor.exits,
        data=data,
        speedup=None,
        confidence=None,
        mode="",
    )
    _store(predictor.directory / FILE, calibration)
    return calibration


def _measured(
    outputs: ExitOutputs, expected_B: np.ndarray | None, thresholds_L: np.ndarray, **others: Any
) -> Calibration:
    """Thresholds with what they give on the texts; `others`: the fields that do not follow from these."""
    accuracy: dict[str, Any] = {"accuracy": None, "full_accuracy": None}
    if expected_B is not None:
        early_B, full_B = (outputs.labels_B(speed) == expected_B for speed in (thresholds_L, 0.0))
        accuracy = {"accuracy": float(early_B.mean()), "full_accuracy": float(full_B.mean())}
        accuracy |= {"lost": int((full_B & ~early_B).sum()), "gained": int((early_B & ~full_B).sum())}
    return Calibration(
        thresholds=tuple(thresholds_L.tolist()),
        texts=outputs.label_LxB.shape[1],
        mean_depth=outputs.mean_depth(thresholds_L),
        layers=len(thresholds_L),
        agreement=outputs.accuracy(thresholds_L, outputs.labels_B(0.0)),
        device=jax.devices()[0].device_kind,
        date=datetime.date.today().isoformat(),
        **accuracy,
        **others,
    )


def _store(path: Path, calibration: Calibration) -> None:
    """Add a calibration to a model's file, in place of an earlier one for the same target."""
    with unless_refused(path, "write the calibration"):
        write_json(path, entries_of(path) | {calibration.target: to_dict(calibration)})


def _thresholds(
    config: CalibrateConfig,
    outputs: ExitOutputs,
    expected_B: np.ndarray | None,
    asked: Sequence[bool],
    measure: Callable[..., Spread],
) -> tuple[float | np.ndarray, Spread]:
    """The thresholds of the target, and their measured speedup."""
    if config.speedup is not None:
        return _reach_speedup(outputs, measure, config.speedup)
    if config.agreement is not None:
        found: float | np.ndarray = fastest_with_guarantee(
            outputs, agreement=config.agreement, confidence=config.confidence
        )
    elif config.max_drop is None:
        assert expected_B is not None
        found = recommended_speed(outputs, expected_B)
    else:
        assert expected_B is not None
        drop = config.max_drop / 100
        found = fastest_within(outputs, expected_B, max_drop=drop)
        if config.per_layer:
            found = fastest_per_layer(outputs, expected_B, max_drop=drop, start=found, asked=asked)
    return found, measure(thresholds=found)


def measured_speedup(
    predictor: Predictor, plan: BatchedTexts, *, thresholds: float | np.ndarray, mode: Mode, repeats: int
) -> Spread:
    """The wall-clock speedup of an engine over full depth on the same batches."""
    full, early = (
        functools.partial(predictor.answers, plan, speed=speed, mode=mode) for speed in (0.0, np.asarray(thresholds))
    )
    for run in (full, early):
        run()
    return Spread.of(speedups_over_first(interleaved_times([full, early, full], repeats))[0])


def _reach_speedup(outputs: ExitOutputs, measure: Callable[..., Spread], wanted: float) -> tuple[float, Spread]:
    """The smallest threshold that was found to reach a measured speedup, and that measurement.

    The efficiency that is measured at one mean depth corrects the next, until two agree.
    """
    layers, efficiency = len(outputs.uncertainty_LxB), 1.0
    measured: dict[float, Spread] = {}
    for _ in range(SPEEDUP_TRIES):
        threshold = slowest_of(outputs, depth=efficiency * layers / wanted)
        if threshold in measured:
            break
        measured[threshold] = measure(thresholds=threshold)
        # A little more than needed, so that noise does not hold the search just below its target.
        efficiency = 0.99 * measured[threshold].median * outputs.mean_depth(threshold) / layers
    enough = [threshold for threshold, speedup in measured.items() if speedup.median >= wanted]
    if not enough:
        reached = max(speedup.median for speedup in measured.values())
        raise UserError(
            f"--speedup {wanted:g} cannot be reached: the most that was measured on these texts is {reached:.2f} times "
            "full depth; ask for less"
        )
    return min(enough), measured[min(enough)]


def fastest_within(outputs: ExitOutputs, expected_B: np.ndarray, *, max_drop: float) -> float:
    """The one threshold of the least mean depth whose accuracy is at most `max_drop` below full depth's.

    Args:
      expected_B: int, the correct classes.
      max_drop: a share, not points: 0.005 is half a point.
    """
    floor = outputs.accuracy(0.0, expected_B) - max_drop
    good = [speed for speed in GRID if outputs.accuracy(speed, expected_B) >= floor - 1e-12]
    return float(min(good, key=outputs.mean_depth, default=0.0))


def recommended_speed(outputs: ExitOutputs, expected_B: np.ndarray) -> float:
    """The highest of `SPEEDS` up to which no speed loses more than `RECOMMENDED_DROP` against full depth; 0: none.

    The loss is counted in pairs: texts that full depth answers correctly and the speed does not, minus those for which
    it is the other way round, over all texts. With fewer than 200 texts no such text may be lost. The search ends at
    the first speed that loses more, so that a higher one is not chosen by luck. Of speeds at which every text exits
    at the same layer, the lowest is chosen.
    """
    full = int((outputs.labels_B(0.0) == expected_B).sum())
    chosen, depth = 0.0, outputs.mean_depth(0.0)
    for speed in SPEEDS:
        lost = full - int((outputs.labels_B(speed) == expected_B).sum())
        if lost > RECOMMENDED_DROP * len(expected_B):
            break
        if outputs.mean_depth(speed) < depth:
            chosen, depth = speed, outputs.mean_depth(speed)
    return chosen


def fastest_per_layer(
    outputs: ExitOutputs, expected_B: np.ndarray, *, max_drop: float, start: float, asked: Sequence[bool]
) -> np.ndarray:
    """One threshold per layer `[L]`, of a mean depth no greater than with `start`, of `fastest_within`, for all.

    Coordinate descent from that one: each layer in turn takes the threshold of the least mean depth that keeps the
    accuracy. More thresholds fit the dev set more closely; give it enough texts.
    """
    floor = outputs.accuracy(0.0, expected_B) - max_drop
    layers = len(asked)
    best_L = np.full(layers, start, np.float32)
    best_depth = outputs.mean_depth(best_L)
    for _ in range(ROUNDS):
        before = best_depth
        for layer in (layer for layer in range(layers - 1) if asked[layer]):
            for candidate in np.quantile(outputs.uncertainty_LxB[layer], np.linspace(0, 1, LAYER_CANDIDATES)):
                tried_L = best_L.copy()
                tried_L[layer] = candidate
                depth = outputs.mean_depth(tried_L)
                if depth < best_depth and outputs.accuracy(tried_L, expected_B) >= floor - 1e-12:
                    best_L, best_depth = tried_L, depth
        if best_depth == before:
            break
    return best_L


def fastest_with_guarantee(outputs: ExitOutputs, *, agreement: float, confidence: float) -> float:
    """The largest threshold that is guaranteed to give full depth's label to a share `agreement` of texts like these.

    Learn-then-Test (Angelopoulos et al. 2021) with fixed-sequence testing: from the smallest threshold of `GRID` up,
    the hypothesis "it disagrees on more than 1 - agreement" is tested by the exact binomial tail at level
    1 - confidence; the first that cannot be rejected ends the search. Over draws of B independent texts, the
    probability that the guarantee does not hold is at most 1 - confidence. 0, full depth, always meets it.
    """
    full_B = outputs.labels_B(0.0)
    safe = 0.0
    for speed in GRID:
        disagreements = int((outputs.labels_B(speed) != full_B).sum())
        p_value = scipy.stats.binom.cdf(disagreements, len(full_B), 1 - agreement)
        if p_value > 1 - confidence:
            break
        safe = float(speed)
    return safe


def slowest_of(outputs: ExitOutputs, *, depth: float) -> float:
    """The smallest threshold of `GRID` whose mean depth is `depth` or less; 1, the largest, when it is deeper too."""
    return next((float(speed) for speed in GRID if outputs.mean_depth(speed) <= depth), 1.0)
