"""Numbers about predictions: accuracy by a value's range, and the spread of repeated measurements."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

QUARTILES_FROM = 5
"""Fewer values have no quartiles."""
BINS = 10
"""Bins of uncertainty or probability, equally wide from 0 to 1, as in the paper's figure 4."""
EDGES = np.linspace(0, 1, BINS + 1)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity."""

    median: float
    low: float
    high: float
    lower_quartile: float | None = None
    """None for fewer than `QUARTILES_FROM` values."""
    upper_quartile: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The median, smallest and largest of one or more values, and the quartiles of enough."""
        ends = statistics.median(values), min(values), max(values)
        if len(values) < QUARTILES_FROM:
            return cls(*ends)
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(*ends, lower, upper)

    @property
    def middle(self) -> tuple[float, float]:
        """The quartiles; the smallest and largest value where there are no quartiles."""
        if self.lower_quartile is None or self.upper_quartile is None:
            return self.low, self.high
        return self.lower_quartile, self.upper_quartile

    @property
    def relative(self) -> float:
        """The range over the median: how noisy the measurement is."""
        return (self.high - self.low) / self.median


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """The texts whose value (an uncertainty or a probability) is in `[low, high)`; the last bin includes 1."""

    low: float
    high: float
    texts: int
    right: int
    """Texts that are classified correctly."""
    mean: float | None
    """The mean of the values; None for an empty bin."""
    accuracy: float | None
    """The share of correct texts; None for an empty bin."""


def bins_of(value_B: np.ndarray, right_B: np.ndarray) -> tuple[Bin, ...]:
    """Correct and all texts by value, in `BINS` bins.

    Args:
      value_B: in [0, 1].
      right_B: bool.
    """
    bin_B = np.clip(np.searchsorted(EDGES, value_B, side="right") - 1, 0, BINS - 1)
    texts, right, total = (np.bincount(bin_B, weights=one, minlength=BINS) for one in (None, right_B, value_B))
    return tuple(
        Bin(
            low=float(low),
            high=float(high),
            texts=int(count),
            right=int(good),
            mean=float(values / count) if count else None,
            accuracy=float(good / count) if count else None,
        )
        for low, high, count, good, values in zip(EDGES[:-1], EDGES[1:], texts, right, total, strict=True)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the distance of mean probability and accuracy, averaged over the texts.

    Guo et al. 2017, equation 3 (arXiv 1706.04599).

    Args:
      bins: of probabilities, with at least one text.
    """
    gaps = (abs(one.right - one.texts * one.mean) for one in bins if one.mean is not None)
    return sum(gaps) / sum(one.texts for one in bins)
