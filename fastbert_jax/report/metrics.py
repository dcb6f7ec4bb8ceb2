"""Numbers about answers: accuracy, and the middle and spread of repeated measurements."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np


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

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The median, smallest and largest of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def relative(self) -> float:
        """The whole spread over the median: how noisy the measurement is."""
        return (self.high - self.low) / self.median
