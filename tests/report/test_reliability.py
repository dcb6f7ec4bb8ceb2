"""Reliability counts every answer once, and its error is the distance of probability and truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.report.exit_study import BINS
from fastbert_jax.report.reliability import calibration_error, reliability_bins


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_every_answer_is_in_the_bin_of_its_probability(answers: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*answers, strict=True))
    bins = reliability_bins(confidence, right)
    assert len(bins) == BINS
    assert (sum(one.texts for one in bins), sum(one.right for one in bins)) == (len(answers), right.sum())
    for place, one in enumerate(bins):
        assert one.confidence is None or place / BINS - 1e-9 <= one.confidence <= (place + 1) / BINS + 1e-9
    assert 0 <= calibration_error(bins) <= 1


def test_the_error_is_how_far_probability_and_truth_are_apart() -> None:
    # Three answers of 0.95 of which two are right, one of 0.55 that is wrong.
    bins = reliability_bins(np.array([0.95, 0.95, 0.95, 0.55]), np.array([True, True, False, False]))
    assert calibration_error(bins) == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * 0.55)
    honest = reliability_bins(np.full(4, 0.75), np.array([True, True, True, False]))
    assert calibration_error(honest) == pytest.approx(0)
