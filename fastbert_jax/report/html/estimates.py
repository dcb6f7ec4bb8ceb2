"""The speedup in wall-clock time at speeds that were not timed, from those that were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastbert_jax.report.comparison import ComparisonRow
from fastbert_jax.report.exit_study import SpeedPoint


def estimated_speedups(rows: Sequence[ComparisonRow], points: Sequence[SpeedPoint]) -> list[float]:
    """One mode's speedup at every point; where it was timed, that one.

    Between two timed speeds it lies on the line between them over L / mean depth, which a speedup follows up to its
    efficiency. Full depth, with 1 at 1, counts as timed. Beyond the fastest timed speed nothing is promised: its
    speedup stands.

    Args:
      rows: one or more, of one mode.
    """
    layers = rows[0].layers
    known: dict[float, list[float]] = {1.0: [1.0]}
    for row in rows:
        known.setdefault(layers / row.mean_depth, []).append(row.speedup.median)
    skipped = sorted(known)
    line = [float(np.mean(known[one])) for one in skipped]
    timed = {0.0: 1.0} | {row.speed: row.speedup.median for row in rows}
    return [timed.get(point.speed, float(np.interp(layers / point.mean_depth, skipped, line))) for point in points]
