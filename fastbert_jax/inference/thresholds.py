"""Thresholds for a target, found on what every exit predicts for a dev set. Plain arrays in, thresholds out.

Shapes in names: B texts, L layers, T thresholds that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from fastbert_jax.inference.exit_outputs import ExitOutputs

GRID = np.geomspace(1e-4, 1, 200).astype(np.float32)
"""Thresholds to try, rising from almost 0: fixed before the data are seen, as a guarantee requires."""
LAYER_CANDIDATES = 40
"""Thresholds to try for one layer: quantiles of its uncertainties."""


def fastest_within(outputs: ExitOutputs, expected_B: np.ndarray, *, max_drop: float) -> float:
    """The one threshold of the least mean depth whose accuracy is at most `max_drop` below full depth's.

    Args:
      expected_B: int, the correct classes.
      max_drop: a share, not points: 0.005 is half a point.
    """
    floor = outputs.accuracy(0.0, expected_B) - max_drop
    good = [speed for speed in GRID if outputs.accuracy(speed, expected_B) >= floor - 1e-12]
    return float(min(good, key=outputs.mean_depth, default=0.0))


def fastest_per_layer(
    outputs: ExitOutputs, expected_B: np.ndarray, *, max_drop: float, asked: Sequence[bool], rounds: int = 3
) -> np.ndarray:
    """One threshold per layer `[L]`, of a mean depth no greater than `fastest_within` finds with one for all.

    Coordinate descent from that one: each layer in turn takes the threshold of the least mean depth that keeps the
    accuracy. More thresholds fit the dev set more closely; give it enough texts.
    """
    floor = outputs.accuracy(0.0, expected_B) - max_drop
    layers = len(asked)
    best_L = np.full(layers, fastest_within(outputs, expected_B, max_drop=max_drop), np.float32)
    best_depth = outputs.mean_depth(best_L)
    for _ in range(rounds):
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


def slowest_of(outputs: ExitOutputs, *, depth: float) -> float | None:
    """The smallest threshold of `GRID` whose mean depth is `depth` or less; None when the largest is deeper."""
    return next((float(speed) for speed in GRID if outputs.mean_depth(speed) <= depth), None)
