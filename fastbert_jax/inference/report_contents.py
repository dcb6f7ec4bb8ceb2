"""From texts whose every exit was asked, and what was measured on them, to what a report shows.

Shapes in names: B texts, L layers, U speeds, N classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastbert_jax.inference.exit_outputs import CURVE, AskedTexts
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.html.contents import (
    DevPoint,
    Report,
    ReportedClass,
    ReportedExit,
    ReportedSpeed,
    ReportedText,
)
from fastbert_jax.report.reliability import reliability_bins
from fastbert_jax.text.examples import Text

CLASSES = 40
"""The most classes that are shown one by one."""
EXAMPLES = 6
"""Easy texts, and as many hard ones."""
CHARACTERS = 400
"""The most that is shown of a text or of a label."""


def report_of(
    asked: AskedTexts, comparison: Comparison, *, model: str, data: str, training: Sequence[DevPoint] = ()
) -> Report:
    """What a report shows.

    Args:
      comparison: measured on these texts.
      model, data: what the report calls them, see `Report`.
      training: in the order of the steps.
    """
    labels = asked.predictor.labels
    texts_N = np.bincount(asked.expected_B, minlength=len(labels))
    classes = np.sort(np.argsort(-texts_N, kind="stable")[:CLASSES])
    speeds = sorted({*CURVE, *(row.speed for row in comparison.rows)})
    depth_UxB = np.stack([asked.exits.depth_B(speed) for speed in speeds])
    easy, hard = _easy_and_hard(asked, depth_UxB)
    return Report(
        model=model,
        data=data,
        comparison=comparison,
        speeds=tuple(_speed(asked, speed, depth_B, classes) for speed, depth_B in zip(speeds, depth_UxB, strict=True)),
        exits=tuple(_exit(asked, layer) for layer in asked.asked_layers()),
        classes=tuple(ReportedClass(label=_cut(labels[one]), texts=int(texts_N[one])) for one in classes),
        num_classes=len(labels),
        easy=tuple(_text(asked, one, depth_UxB[:, one]) for one in easy),
        hard=tuple(_text(asked, one, depth_UxB[:, one]) for one in hard),
        training=tuple(training),
    )


def _speed(asked: AskedTexts, speed: float, depth_B: np.ndarray, classes: np.ndarray) -> ReportedSpeed:
    expected_B, answer_B = asked.expected_B, asked.exits.answer_B(speed)
    confidence_B = np.take_along_axis(asked.confidence_LxB, depth_B[None] - 1, axis=0)[0]
    right_B = answer_B == expected_B
    found_N, texts_N, right_N, depth_N = (
        np.bincount(label_B, weights=weights, minlength=len(asked.predictor.labels))[classes]
        for label_B, weights in ((answer_B, None), (expected_B, None), (expected_B, right_B), (expected_B, depth_B))
    )
    return ReportedSpeed(
        point=asked.point(speed) if speed else asked.full_depth(),
        reliability=reliability_bins(confidence_B, right_B),
        found=tuple(found_N.tolist()),
        right=tuple(right_N.astype(int).tolist()),
        depth=tuple(float(layers / texts) if texts else None for layers, texts in zip(depth_N, texts_N, strict=True)),
    )


def _exit(asked: AskedTexts, layer: int) -> ReportedExit:
    alone = [place == layer for place in range(1, asked.predictor.config.num_layers + 1)]
    right_B = asked.exits.label_LxB[layer - 1] == asked.expected_B
    return ReportedExit(
        row=asked.exit_row(layer),
        true_speedup=asked.full_flops.true / asked.stopping_at(layer, alone).true,
        reliability=reliability_bins(asked.confidence_LxB[layer - 1], right_B),
    )


def _easy_and_hard(asked: AskedTexts, depth_UxB: np.ndarray) -> tuple[list[int], list[int]]:
    """The texts that run the fewest layers over all speeds, and those that run the most; no text is both."""
    first_B = asked.exits.uncertainty_LxB[asked.asked_layers()[0] - 1]
    order = np.lexsort((first_B, depth_UxB.sum(0))).tolist()
    half = len(order) // 2
    return _unlike(asked, order[: len(order) - half]), _unlike(asked, reversed(order[len(order) - half :]))


def _unlike(asked: AskedTexts, order: Iterable[int]) -> list[int]:
    """The first few, each text once."""
    chosen: dict[Text, int] = {}
    for one in order:
        chosen.setdefault(asked.texts[one], one)
        if len(chosen) == EXAMPLES:
            break
    return list(chosen.values())


def _text(asked: AskedTexts, one: int, depth_U: np.ndarray) -> ReportedText:
    labels, text = [_cut(label) for label in asked.predictor.labels], asked.texts[one]
    first, second = (text, "") if isinstance(text, str) else text
    return ReportedText(
        text=_cut(first),
        pair=_cut(second),
        label=labels[asked.expected_B[one]],
        answers=tuple(labels[label] for label in asked.exits.label_LxB[:, one]),
        uncertainty=tuple(asked.exits.uncertainty_LxB[:, one].tolist()),
        depths=tuple(depth_U.tolist()),
    )


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
