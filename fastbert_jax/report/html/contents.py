"""What a report shows, as plain numbers: what every speed gives, what every exit knows, some texts, how it learned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow
from fastbert_jax.report.exit_study import ExitRow, SpeedPoint
from fastbert_jax.report.html.estimates import estimated_speedups
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.reliability import ReliabilityBin, calibration_error

ALLOWED_DROP = 0.005
"""Accuracy that the speed at which a report opens may lose against full depth."""
DIGITS = 5
"""Of the page's numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedSpeed:
    """All texts at one speed."""

    point: SpeedPoint
    reliability: tuple[ReliabilityBin, ...]
    """Of the answers that are given."""
    found: tuple[int, ...]
    """Texts that are given each class's label, in the order of `Report.classes`."""
    right: tuple[int, ...]
    """Texts of each class that are given its label."""
    depth: tuple[float | None, ...]
    """Executed layers per text of each class; None where it has no text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedExit:
    """One exit, asked of all texts."""

    row: ExitRow
    true_speedup: float
    """Of a model that ends here, with this exit alone, over full depth: FLOPs as spent."""
    reliability: tuple[ReliabilityBin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedClass:
    """One class."""

    label: str
    texts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedText:
    """One text, and where it leaves."""

    text: str
    pair: str
    """The second text of a pair; empty where there is none."""
    label: str
    """The right one."""
    answers: tuple[str, ...]
    """Each exit's, in the order of the layers."""
    uncertainty: tuple[float, ...]
    """Of each exit, in the order of the layers."""
    depths: tuple[int, ...]
    """Executed layers at each speed of the report."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DevPoint:
    """What the dev set said of one step of training."""

    step: int
    """Over the whole run."""
    phase: str
    accuracy: tuple[float, ...]
    """Of each exit, in the order of the layers."""
    loss: tuple[float, ...]
    """Cross entropy of each exit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A model on some labelled texts."""

    model: str
    """Its directory, as a command names it."""
    data: str
    """The texts, in words."""
    comparison: Comparison
    speeds: tuple[ReportedSpeed, ...]
    """Full depth, which is speed 0, then rising speeds; those of the comparison are among them."""
    exits: tuple[ReportedExit, ...]
    """Those that are asked."""
    classes: tuple[ReportedClass, ...]
    """The largest; texts of others count everywhere but here."""
    num_classes: int
    easy: tuple[ReportedText, ...]
    hard: tuple[ReportedText, ...]
    training: tuple[DevPoint, ...] = ()
    """In the order of the steps; empty where it is not known."""

    @property
    def start(self) -> int:
        """Which of `speeds` the page opens at: the fastest measured one that loses at most `ALLOWED_DROP`.

        Where none was measured, of all; where all lose more, the one that loses least.
        """
        measured = {row.speed for row in self.comparison.rows if row.speed > 0}
        points = [speed.point for speed in self.speeds]
        some = [place for place, point in enumerate(points) if point.speed in measured] or list(range(len(points)))
        floor = points[0].accuracy - ALLOWED_DROP
        good = [place for place in some if points[place].accuracy >= floor]
        if good:
            return max(good, key=lambda place: points[place].true_speedup)
        return max(some, key=lambda place: points[place].accuracy)

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to `DIGITS`, null for what is no number: what the page's scripts draw from."""
        comparison = self.comparison
        values = {
            "layers": comparison.layers,
            "texts": comparison.texts,
            "num_classes": self.num_classes,
            "baseline": comparison.baseline_accuracy,
            "start": self.start,
            "sizes": [self._size(size) for size in comparison.batch_sizes],
            "speeds": [
                {
                    "speed": one.point.speed,
                    "accuracy": one.point.accuracy,
                    "leaving": one.point.leaving,
                    "depth": one.point.mean_depth,
                    "flops": one.point.true_speedup,
                    "reliability": _reliability(one.reliability),
                    "found": one.found,
                    "right": one.right,
                    "depths": one.depth,
                }
                for one in self.speeds
            ],
            "exits": [
                {
                    "layer": one.row.layer,
                    "accuracy": one.row.accuracy,
                    "flops": one.true_speedup,
                    "bins": [dataclasses.asdict(part) | {"accuracy": part.accuracy} for part in one.row.bins],
                    "reliability": _reliability(one.reliability),
                }
                for one in self.exits
            ],
            "classes": [dataclasses.asdict(one) for one in self.classes],
            "easy": [dataclasses.asdict(one) for one in self.easy],
            "hard": [dataclasses.asdict(one) for one in self.hard],
            "training": [dataclasses.asdict(one) for one in self.training],
        }
        return _rounded(values)

    def _size(self, size: BatchSizeComparison) -> dict[str, Any]:
        """A batch size: every mode's times at the measured speeds, and its speedup at all of the report's."""
        full, *others = size.rows
        points = [one.point for one in self.speeds]
        return {
            "batches": size.batches,
            "texts": size.timed_texts,
            "full": dataclasses.asdict(Spread.of([*full.seconds, *size.seconds_again])),
            "modes": [
                {
                    "mode": mode,
                    "speedups": estimated_speedups(rows, points),
                    "measured": [
                        {
                            "speed": row.speed,
                            "accuracy": row.accuracy,
                            "speedup": dataclasses.asdict(row.speedup),
                            "seconds": dataclasses.asdict(Spread.of(row.seconds)),
                        }
                        for row in rows
                    ],
                }
                for mode, rows in _by_mode(others).items()
            ],
        }


def _by_mode(rows: Sequence[ComparisonRow]) -> dict[str, list[ComparisonRow]]:
    return {mode: [row for row in rows if row.mode == mode] for mode in dict.fromkeys(row.mode for row in rows)}


def _reliability(bins: Sequence[ReliabilityBin]) -> dict[str, Any]:
    return {"bins": [dataclasses.asdict(one) for one in bins], "error": calibration_error(bins)}


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, DIGITS) if math.isfinite(value) else None
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
        case list() | tuple():
            return [_rounded(one) for one in value]
        case _:
            return value
