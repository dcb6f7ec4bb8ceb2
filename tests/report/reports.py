"""A report of two speeds on a model of six layers, whose names and texts are those of somebody who means harm."""

from __future__ import annotations

import numpy as np

from fastbert_jax.report.exit_study import ExitRow, SpeedPoint, uncertainty_bins
from fastbert_jax.report.html.contents import (
    DevPoint,
    Report,
    ReportedClass,
    ReportedExit,
    ReportedSpeed,
    ReportedText,
)
from fastbert_jax.report.reliability import reliability_bins
from tests.report.comparisons import COMPARISON

HARM = "</script><img src=x onerror=\"document.title='harmed'\">&amp;'{{ 1 }}\u2028 & <b>"
UNCERTAINTY = np.array([0.05, 0.2, 0.45, 0.9])
RIGHT = np.array([True, True, False, True])


def speed(value: float, leaving: tuple[int, ...], accuracy: float) -> ReportedSpeed:
    return ReportedSpeed(
        point=SpeedPoint(
            speed=value,
            accuracy=accuracy,
            leaving=leaving,
            uncertainty=(0.5, None, None, None, None, None),
            paper_flops=2e6,
            true_flops=2.5e6,
            paper_speedup=1 + 4 * value,
            true_speedup=1 + 5 * value,
        ),
        reliability=reliability_bins(1 - UNCERTAINTY, RIGHT),
        found=(2, 2),
        right=(1, 2) if value < 0.5 else (1, 1),
        depth=(2.5, None),
    )


def text(of: str, depths: tuple[int, ...]) -> ReportedText:
    return ReportedText(
        text=of, pair=of, label=HARM, answers=("b", HARM) * 3, uncertainty=(0.6, 0.2) * 3, depths=depths
    )


REPORT = Report(
    model=f"runs/{HARM}",
    data=HARM,
    comparison=COMPARISON,
    speeds=(
        speed(0.0, (0, 0, 0, 0, 0, 4), 0.97),
        speed(0.1, (0, 0, 2, 0, 0, 2), 0.969),
        speed(0.3, (0, 2, 1, 0, 0, 1), 0.968),
        speed(0.5, (1, 2, 1, 0, 0, 0), 0.9651),
        speed(1.0, (4, 0, 0, 0, 0, 0), 0.80),
    ),
    exits=tuple(
        ReportedExit(
            row=ExitRow(
                layer=layer,
                accuracy=0.75,
                agreement=0.9,
                mean_uncertainty=0.4,
                paper_speedup=6 / layer,
                bins=uncertainty_bins(UNCERTAINTY, RIGHT),
            ),
            true_speedup=6 / layer,
            reliability=reliability_bins(1 - UNCERTAINTY, RIGHT),
        )
        for layer in range(1, 7)
    ),
    classes=(ReportedClass(label=HARM, texts=2), ReportedClass(label="b", texts=0)),
    num_classes=2,
    easy=(text(HARM, (6, 3, 2, 1, 1)),),
    hard=(text("a " * 150, (6, 6, 6, 3, 1)),),
    training=tuple(
        DevPoint(step=step, phase=phase, accuracy=(0.5,) * 5 + (0.9,), loss=(0.7,) * 6)
        for step, phase in ((5, "fine_tune"), (9, "distil"), (12, "distil"))
    ),
)
