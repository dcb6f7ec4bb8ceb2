"""The report of a comparison: what its page shows of every speed, exit and class, and of some texts.

Shapes in names: B texts, L layers, U speeds, N classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastbert_jax.inference.exit_outputs import EvaluatedTexts, at_exit
from fastbert_jax.report.comparison import (
    BatchSizeComparison,
    Bin,
    Comparison,
    SpeedPoint,
    Spread,
    bins_of,
    calibration_error,
)
from fastbert_jax.text.examples import Text

DESCRIPTION = "the report, with plots; open it in a browser"
"""Printed beside the name of its file."""
ALLOWED_DROP = 0.005
"""Accuracy that the speed at which a report opens may lose against full depth."""
DIGITS = 5
"""Of the page's numbers."""
CLASSES = 40
"""The most classes that are shown one by one."""
EXAMPLES = 6
"""Easy texts, and as many hard ones."""
CHARACTERS = 400
"""The most that is shown of a text or of a label."""


def page_values(
    evaluated: EvaluatedTexts, comparison: Comparison, training: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """What the page's scripts draw: plain values, rounded to `DIGITS`, with null for a number that is not finite.

    Speeds are full depth (speed 0), then the curve's and the measured ones, rising. Exits are those that are asked.
    Classes are the largest; texts of other classes count everywhere else.

    Args:
      comparison: measured on these texts.
      training: the dev set's accuracies during training, of `training.journal.dev_points`.
    """
    measured = {row.speed for row in comparison.rows if row.speed > 0}
    points = {point.speed: point for point in comparison.curve}
    points |= {speed: evaluated.at(speed) for speed in measured - points.keys()} | {0.0: evaluated.full_depth()}
    ordered = [points[speed] for speed in sorted(points)]
    depth_UxB = np.stack([evaluated.outputs.depth_B(point.speed) for point in ordered])
    texts_N = np.bincount(evaluated.expected_B, minlength=len(evaluated.predictor.labels))
    classes = np.sort(np.argsort(-texts_N, kind="stable")[:CLASSES])
    easy, hard = _easy_and_hard(evaluated, depth_UxB)
    values = {
        "layers": comparison.layers,
        "exit_layers": list(evaluated.predictor.config.exit_layers),
        "texts": comparison.texts,
        "num_classes": len(texts_N),
        "baseline": comparison.baseline_accuracy,
        "start": opening_speed(ordered, measured),
        "sizes": [_size(size, ordered) for size in comparison.batch_sizes],
        "speeds": [
            _speed(evaluated, point, depth_B, classes) for point, depth_B in zip(ordered, depth_UxB, strict=True)
        ],
        "exits": [dataclasses.asdict(row) | {"reliability": _reliability(row.reliability)} for row in comparison.exits],
        "classes": [{"label": _cut(evaluated.predictor.labels[one]), "texts": int(texts_N[one])} for one in classes],
        "easy": [_text(evaluated, one, depth_UxB[:, one]) for one in easy],
        "hard": [_text(evaluated, one, depth_UxB[:, one]) for one in hard],
        "training": [_of_saved_exits(evaluated, point) for point in training],
    }
    rounded: dict[str, Any] = json.loads(
        json.dumps(values),
        parse_float=lambda number: round(float(number), DIGITS),
        parse_constant=lambda _: None,  # NaN and infinities
    )
    return rounded


def opening_speed(points: Sequence[SpeedPoint], measured: set[float]) -> int:
    """The index of the speed that the page opens at: the fastest measured one that loses at most `ALLOWED_DROP`.

    Of all speeds where none was measured; where all lose more, the one that loses least.

    Args:
      points: full depth first.
    """
    some = [place for place, point in enumerate(points) if point.speed in measured] or list(range(len(points)))
    floor = points[0].accuracy - ALLOWED_DROP
    good = [place for place in some if points[place].accuracy >= floor]
    if good:
        return max(good, key=lambda place: points[place].true_speedup)
    return max(some, key=lambda place: points[place].accuracy)


def _size(size: BatchSizeComparison, points: Sequence[SpeedPoint]) -> dict[str, Any]:
    """A batch size: every mode's times at the measured speeds, and its speedup at all of the page's."""
    full, *others = size.rows
    return {
        "batches": size.batches,
        "texts": size.timed_texts,
        "full": dataclasses.asdict(Spread.of([*full.seconds, *size.seconds_again])),
        "modes": [
            {
                "mode": mode,
                "speedups": size.estimated_speedups(mode, points),
                "measured": [
                    {
                        "speed": row.speed,
                        "accuracy": row.accuracy,
                        "speedup": dataclasses.asdict(row.speedup),
                        "seconds": dataclasses.asdict(Spread.of(row.seconds)),
                    }
                    for row in others
                    if row.mode == mode
                ],
            }
            for mode in dict.fromkeys(row.mode for row in others)
        ],
    }


def _speed(evaluated: EvaluatedTexts, point: SpeedPoint, depth_B: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """One speed; `predicted`, `right` and `class_depth` are of each class: texts given it, texts of it given it, and
    layers per text of it, NaN where it has no text."""
    expected_B, label_B = evaluated.expected_B, at_exit(evaluated.outputs.label_LxB, depth_B)
    right_B = label_B == expected_B
    predicted_N, texts_N, right_N, depth_N = (
        np.bincount(class_B, weights=weights, minlength=len(evaluated.predictor.labels))[classes]
        for class_B, weights in ((label_B, None), (expected_B, None), (expected_B, right_B), (expected_B, depth_B))
    )
    return dataclasses.asdict(point) | {
        "reliability": _reliability(bins_of(at_exit(evaluated.outputs.probability_LxB, depth_B), right_B)),
        "predicted": predicted_N.tolist(),
        "right": right_N.astype(int).tolist(),
        "class_depth": np.divide(depth_N, texts_N, out=np.full(len(classes), np.nan), where=texts_N > 0).tolist(),
    }


def _of_saved_exits(evaluated: EvaluatedTexts, point: Mapping[str, Any]) -> dict[str, Any]:
    """A measurement on dev, with null for layers whose exit the saved model does not have."""
    has_exit = evaluated.predictor.network.exits
    return {**point} | {
        name: [value if has else None for value, has in zip(point[name], has_exit, strict=True)]
        for name in ("accuracy", "loss")
    }


def _reliability(bins: Sequence[Bin]) -> dict[str, Any]:
    return {"bins": [dataclasses.asdict(one) for one in bins], "error": calibration_error(bins)}


def _easy_and_hard(evaluated: EvaluatedTexts, depth_UxB: np.ndarray) -> tuple[list[int], list[int]]:
    """The texts that run the fewest layers over all speeds, and those that run the most; no text is both."""
    first_B = evaluated.outputs.uncertainty_LxB[evaluated.asked_layers[0] - 1]
    order = np.lexsort((first_B, depth_UxB.sum(0))).tolist()
    half = len(order) // 2
    return _distinct(evaluated, order[: len(order) - half]), _distinct(evaluated, reversed(order[len(order) - half :]))


def _distinct(evaluated: EvaluatedTexts, order: Iterable[int]) -> list[int]:
    """The first `EXAMPLES`, each text once."""
    chosen: dict[Text, int] = {}
    for one in order:
        chosen.setdefault(evaluated.texts[one], one)
        if len(chosen) == EXAMPLES:
            break
    return list(chosen.values())


def _text(evaluated: EvaluatedTexts, one: int, depth_U: np.ndarray) -> dict[str, Any]:
    """One text: each exit's label and uncertainty in the order of the layers, and its executed layers at each speed."""
    labels, text = [_cut(label) for label in evaluated.predictor.labels], evaluated.texts[one]
    first, second = (text, "") if isinstance(text, str) else text
    return {
        "text": _cut(first),
        "pair": _cut(second),
        "label": labels[evaluated.expected_B[one]],
        "labels": [labels[label] for label in evaluated.outputs.label_LxB[:, one]],
        "uncertainty": evaluated.outputs.uncertainty_LxB[:, one].tolist(),
        "depths": depth_U.tolist(),
    }


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
