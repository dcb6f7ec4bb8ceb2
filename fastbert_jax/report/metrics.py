"""Numbers about answers: accuracy, and the middle and spread of repeated measurements."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

QUARTILES_FROM = 5
"""Fewer values have no quartiles."""


def accuracy(found: np.ndarray, expected: np.ndarray) -> float:
    """The share of equal entries of two arrays `[texts]`.

    Raises:
      ValueError: different shapes, or no entry.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or found.size == 0:
        raise ValueError(f"expected two arrays of one shape with entries, found {found.shape} and {expected.shape}")
    return float(np.mean(found == expected))


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float
    lower_quartile: float | None = None
    """None where there are fewer than `QUARTILES_FROM` values."""
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
        """The two ends of the middle half of the values; of all of them where they are few."""
        if self.lower_quartile is None or self.upper_quartile is None:
            return self.low, self.high
        return self.lower_quartile, self.upper_quartile

    @property
    def relative(self) -> float:
        """The whole spread over the median: how noisy the measurement is."""
        return (self.high - self.low) / self.median
