"""What each part of FastBERT brings, as numbers: variants of one run, each with some seeds, on the same texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbert_jax.report.exit_study import ExitStudy

SCHEMA = 1
"""The version of the form of `Ablations.to_json`; it rises when a key changes its meaning or goes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantRun:
    """One variant of a run, trained with one seed."""

    variant: str
    seed: int
    study: ExitStudy
    """Of all texts; nothing in it is timed."""

    def accuracy_at(self, speedups: Sequence[float] | np.ndarray) -> np.ndarray:
        """Accuracy at these speedups in the paper's FLOPs, between the two speeds of the curve that lie around each.

        NaN where the curve does not come to a speedup: all texts leave at the first layer before.
        """
        known = np.array([point.paper_speedup for point in self.study.curve])
        accuracy = np.array([point.accuracy for point in self.study.curve])
        return np.interp(speedups, known, accuracy, right=np.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablations:
    """All variants on the same texts; the first is FastBERT itself."""

    name: str
    speeds: tuple[float, ...]
    speedups: tuple[float, ...]
    """In the paper's FLOPs, where variants are held against each other."""
    fixed_layers: tuple[int, ...]
    """Depths of the rows without adaptive inference, which are the first variant's exits."""
    runs: tuple[VariantRun, ...]

    @property
    def variants(self) -> dict[str, list[VariantRun]]:
        """The runs of each variant, in order."""
        found: dict[str, list[VariantRun]] = {}
        for run in self.runs:
            found.setdefault(run.variant, []).append(run)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values: what the tables need and every run's curve."""
        first = self.runs[0].study
        return {
            "schema": SCHEMA,
            "name": self.name,
            "texts": first.texts,
            "layers": first.layers,
            "origin": first.origin,
            "runs": [self._plain(run) for run in self.runs],
        }

    def _plain(self, run: VariantRun) -> dict[str, Any]:
        at = {point.speed: point for point in run.study.table}
        return {
            "variant": run.variant,
            "seed": run.seed,
            "full_depth_accuracy": run.study.full_depth.accuracy,
            "exit_accuracy": [row.accuracy for row in run.study.exits],
            "speeds": [
                {
                    "speed": speed,
                    "accuracy": at[speed].accuracy,
                    "mean_depth": at[speed].mean_depth,
                    "paper_flops": at[speed].paper_flops,
                    "paper_speedup": at[speed].paper_speedup,
                }
                for speed in self.speeds
            ],
            "accuracy_at_speedup": {
                f"{speedup:g}": None if np.isnan(value) else float(value)
                for speedup, value in zip(self.speedups, run.accuracy_at(self.speedups), strict=True)
            },
            "curve": [
                {"speed": point.speed, "accuracy": point.accuracy, "paper_speedup": point.paper_speedup}
                for point in run.study.curve
            ],
        }
