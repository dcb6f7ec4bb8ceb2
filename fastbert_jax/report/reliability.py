"""Reliability: how often answers are right, by the probability that was given to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fastbert_jax.report.exit_study import BINS, bin_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Answers whose probability is in one of `BINS` equal parts of [0, 1]."""

    texts: int
    right: int
    confidence: float | None
    """The mean probability of the answers; None where there is no text."""


def reliability_bins(confidence_B: np.ndarray, right_B: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Answers by their probability.

    Args:
      confidence_B: in [0, 1].
      right_B: bool.
    """
    bin_B = bin_of(confidence_B)
    texts, right, confidence = (
        np.bincount(bin_B, weights=weights, minlength=BINS) for weights in (None, right_B, confidence_B)
    )
    return tuple(
        ReliabilityBin(texts=int(count), right=int(good), confidence=float(sure / count) if count else None)
        for count, good, sure in zip(texts, right, confidence, strict=True)
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error: how far probability and share of right answers are apart, over all texts.

    Guo et al. 2017, equation 3 (arXiv 1706.04599).
    """
    gaps = (abs(one.right - one.texts * one.confidence) for one in bins if one.confidence is not None)
    return sum(gaps) / sum(one.texts for one in bins)
