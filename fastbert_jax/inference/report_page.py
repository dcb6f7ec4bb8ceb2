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
    AnswersAt,
    BatchSizeComparison,
    Bin,
    Comparison,
    ComparisonRow,
    Share,
    SpeedPoint,
    Spread,
    bins_of,
    calibration_error,
    is_beyond_noise,
)
from fastbert_jax.report.tables import MislabelledText
from fastbert_jax.text.examples import Text

DESCRIPTION = "the report, with plots; open it in a browser"
"""Printed beside the name of its file."""
DIGITS = 5
"""Of the page's numbers."""
CLASSES = 40
"""The most classes that are shown one by one."""
MATRIX = 8
"""The most classes of a confusion matrix; of more, those with the most wrong answers, and the largest confusions."""
CONFUSIONS = 10
"""The largest confusions that are listed beside it."""
EXAMPLES = 6
"""Easy texts, and as many hard ones."""
CHARACTERS = 400
"""The most that is shown of a text or of a label."""


def page_values(
    evaluated: EvaluatedTexts,
    comparison: Comparison,
    training: Sequence[dict[str, Any]] = (),
    losses: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What the page's scripts draw: plain values, rounded to `DIGITS`, with null for a number that is not finite.

    Speeds are full depth (speed 0), then the curve's, the measured ones and the model's default speed, at which the
    page opens, rising. Exits are those that are asked. Classes are the largest; texts of other classes count everywhere
    else.

    Args:
      comparison: measured on these texts.
      training: the dev set's accuracies during training, of `training.journal.dev_points`.
      losses: of the training texts, of `training.journal.loss_points`.
    """
    shown = {row.speed for row in comparison.rows if row.speed > 0} | {comparison.shown_speed}
    points = {point.speed: point for point in comparison.curve}
    points |= {speed: evaluated.at(speed) for speed in shown - points.keys()} | {0.0: evaluated.full_depth()}
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
        "start": [point.speed for point in ordered].index(comparison.shown_speed),
        "recommended": comparison.recommended is not None,
        "sizes": [_size(size, ordered) for size in comparison.batch_sizes],
        "speeds": [
            _speed(evaluated, point, depth_B, classes) for point, depth_B in zip(ordered, depth_UxB, strict=True)
        ],
        "exits": [
            dataclasses.asdict(row)
            | {"reliability": _reliability(row.reliability)}
            | _interval(comparison.accuracy_of(row.accuracy))
            for row in comparison.exits
        ],
        "labels": [_cut(label) for label in evaluated.predictor.labels],
        "classes": [{"label": _cut(evaluated.predictor.labels[one]), "texts": int(texts_N[one])} for one in classes],
        "easy": [_text(evaluated, one, depth_UxB[:, one]) for one in easy],
        "hard": [_text(evaluated, one, depth_UxB[:, one]) for one in hard],
        "groups": [
            {"column": _cut(one.column), "value": _cut(one.value), "texts": one.texts}
            for one in evaluated.answers_at(0.0).groups
        ],
        "training": [_of_saved_exits(evaluated, point) for point in training],
        "losses": [*losses],
    }
    rounded: dict[str, Any] = json.loads(
        json.dumps(values),
        parse_float=lambda number: round(float(number), DIGITS),
        parse_constant=lambda _: None,  # NaN and infinities
    )
    return rounded


def mislabelled(evaluated: EvaluatedTexts, places: Sequence[str]) -> list[MislabelledText]:
    """The texts whose label the exits contradict, on average over all exits.

    The lower exits have learned the last exit's answers and not the labels, and remember single training texts less
    than it does, so that a wrong label that was trained on is contradicted too.

    Args:
      places: of the texts, such as `train.csv:17`.
    """
    expected_B, mean_BxN = evaluated.expected_B, evaluated.mean_probability_BxN
    suggested_B, labels = mean_BxN.argmax(-1), [_cut(label) for label in evaluated.predictor.labels]
    asked_LxB = evaluated.outputs.label_LxB[np.array(evaluated.predictor.asked_exits)]
    found = []
    for one in np.flatnonzero(suggested_B != expected_B).tolist():
        text = evaluated.texts[one]
        first, second = (text, "") if isinstance(text, str) else text
        found.append(
            MislabelledText(
                place=places[one],
                label=labels[expected_B[one]],
                suggested=labels[suggested_B[one]],
                probability=float(mean_BxN[one, expected_B[one]]),
                suggested_probability=float(mean_BxN[one, suggested_B[one]]),
                agreeing=int((asked_LxB[:, one] == suggested_B[one]).sum()),
                exits=len(asked_LxB),
                text=_cut(" ".join(first.split())),
                pair=_cut(" ".join(second.split())),
            )
        )
    return found


def _size(size: BatchSizeComparison, points: Sequence[SpeedPoint]) -> dict[str, Any]:
    """A batch size: every mode's times at the measured speeds, and its speedup at all of the page's."""
    full, *others = size.rows
    return {
        "batches": size.batches,
        "texts": size.timed_texts,
        "noise": size.least_difference,
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
                        "noise": _against_noise(size, row),
                        "seconds": dataclasses.asdict(Spread.of(row.seconds)),
                    }
                    for row in others
                    if row.mode == mode
                ],
            }
            for mode in dict.fromkeys(row.mode for row in others)
        ],
    }


def _against_noise(size: BatchSizeComparison, row: ComparisonRow) -> str:
    """Where a mode is no faster than full depth, what it is, in words."""
    if size.is_faster(row.speedups):
        return ""
    return "slower" if size.is_faster([1 / speedup for speedup in row.speedups]) else "within the noise"


def _speed(evaluated: EvaluatedTexts, point: SpeedPoint, depth_B: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """One speed; `scores` are precision, recall and F1 of each class with their intervals, null where it has none;
    `class_depth` is layers per text of it, NaN where it has no text."""
    expected_B, number = evaluated.expected_B, len(evaluated.predictor.labels)
    right_B = at_exit(evaluated.outputs.label_LxB, depth_B) == expected_B
    texts_N, depth_N = (np.bincount(expected_B, weights=one, minlength=number)[classes] for one in (None, depth_B))
    answers = evaluated.answers_at(point.speed)
    accuracy = Share.of(int(right_B.sum()), len(right_B))
    scores = [answers.classes[one] for one in classes]
    return (
        dataclasses.asdict(point)
        | _interval(accuracy)
        | {
            "beyond_noise": is_beyond_noise(point.gained or 0, point.lost or 0),
            "reliability": _reliability(bins_of(at_exit(evaluated.outputs.probability_LxB, depth_B), right_B)),
            "scores": [[_share(one.precision), _share(one.recall), _share(one.f1)] for one in scores],
            "class_depth": np.divide(depth_N, texts_N, out=np.full(len(classes), np.nan), where=texts_N > 0).tolist(),
            "confusion": _confusion(answers, evaluated.predictor.labels),
            "groups": [_share(one.accuracy) for one in answers.groups],
        }
    )


def _confusion(answers: AnswersAt, labels: Sequence[str]) -> dict[str, Any]:
    """The matrix of the classes with the most wrong answers, by their numbers, and the largest confusions.

    `cells` has a row for each class and a column for each class that its texts are given, then one for all others.
    """
    place = {label: number for number, label in enumerate(labels)}
    wrong = [(place[one.expected], place[one.given], one.texts) for one in answers.confusions]
    classes = list(range(len(labels)))
    if len(labels) > MATRIX:
        count_N = np.zeros(len(labels), int)
        for expected, given, texts in wrong:
            count_N[[expected, given]] += texts
        classes = np.argsort(-count_N, kind="stable")[:MATRIX].tolist()
    cell = {(expected, given): texts for expected, given, texts in wrong}
    cell |= {(one, one): answers.classes[one].right for one in classes}
    cells = [[cell.get((row, column), 0) for column in classes] for row in classes]
    return {
        "classes": classes,
        "cells": [[*row, answers.classes[one].texts - sum(row)] for one, row in zip(classes, cells, strict=True)],
        "largest": wrong[:CONFUSIONS],
    }


def _share(share: Share | None) -> list[float] | None:
    return [share.value, share.low, share.high] if share else None


def _interval(share: Share | None) -> dict[str, float]:
    return {"low": share.low, "high": share.high} if share else {}


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
