"""A report of four texts on a model of six layers, whose names and texts are those of an attacker."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import numpy as np

from fastbert_jax.config import BertConfig
from fastbert_jax.inference.exit_outputs import EvaluatedTexts, ExitOutputs
from fastbert_jax.inference.report_page import page_values
from fastbert_jax.model.bert import Bert
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import MislabelledText, render_page
from tests.report.comparisons import COMPARISON

HARM = "</script><img src=x onerror=\"document.title='harmed'\">&amp;'{{ 1 }}\u2028 & <b>"
LAYERS = 6
LABELS = (HARM, "b", "c")
SPEEDS = (0.0, 0.1, 0.3, 0.5, 1.0)
UNCERTAINTY_BXL = np.array(
    [
        [0.45, 0.20, 0.05, 0.05, 0.05, 0.05],
        [0.60, 0.25, 0.08, 0.05, 0.05, 0.05],
        [0.80, 0.60, 0.28, 0.20, 0.15, 0.12],
        [0.90, 0.80, 0.45, 0.40, 0.35, 0.30],
    ],
    np.float32,
)
EXPECTED = np.array([0, 1, 1, 0])
WRONG_LXB = np.arange(LAYERS)[:, None] < np.array([0, 0, 1, 2])
"""The first exits give the hard texts the last label."""

CONFIG = BertConfig(vocab_size=9, hidden_size=32, num_layers=LAYERS, num_heads=2, feed_forward_size=64, num_classes=3)
EVALUATED = EvaluatedTexts(
    predictor=types.SimpleNamespace(
        config=CONFIG,
        network=Bert(CONFIG),
        labels=LABELS,
        asked_exits=(True,) * LAYERS,
    ),
    texts=[(HARM, HARM), "a b", "c d", "a " * 300],
    expected_B=EXPECTED,
    outputs=ExitOutputs(
        uncertainty_LxB=UNCERTAINTY_BXL.T,
        label_LxB=np.where(WRONG_LXB, 2, EXPECTED),
        probability_LxB=1 - UNCERTAINTY_BXL.T / 2,
    ),
    mean_probability_BxN=np.eye(3)[EXPECTED],
    lengths_B=np.full(4, 16),
    truncated_texts=0,
    groups={HARM: [HARM, "en", "en", "de"]},
)
MEASURED = dataclasses.replace(
    COMPARISON,
    texts=4,
    shown_speed=0.5,
    answers=tuple(EVALUATED.answers_at(speed) for speed in (0.0, 0.1, 0.5)),
    exits=tuple(EVALUATED.exit_row(layer) for layer in range(1, LAYERS + 1)),
    curve=tuple(EVALUATED.at(speed) for speed in SPEEDS),
)
TRAINING = [
    {"step": step, "phase": phase, "accuracy": [0.5] * 5 + [0.9], "loss": [0.7] * 6}
    for step, phase in ((5, "fine_tune"), (9, "distil"), (12, "distil"))
]
LOSSES = [
    {"step": step, "phase": phase, "loss": 1 / step}
    for step, phase in ((2, "fine_tune"), (5, "fine_tune"), (9, "distil"))
]

MISLABELLED = [
    MislabelledText(
        place=f"{HARM}.csv:{row}",
        label=HARM,
        suggested="b",
        probability=row / 100,
        suggested_probability=0.9,
        agreeing=5,
        exits=LAYERS,
        text="=HYPERLINK(1)" if row == 2 else HARM,
        pair=HARM if row == 3 else "",
    )
    for row in range(1, 26)
]


def values_of(comparison: Comparison = MEASURED) -> dict[str, Any]:
    return page_values(EVALUATED, comparison, TRAINING, LOSSES)


def page_of(
    comparison: Comparison = MEASURED,
    *,
    model: str = f"runs/{HARM}",
    training: list[dict[str, Any]] = TRAINING,
    losses: list[dict[str, Any]] = LOSSES,
) -> str:
    values = page_values(EVALUATED, comparison, training, losses)
    return render_page(comparison, values, model=model, data=HARM, mislabelled=MISLABELLED)
