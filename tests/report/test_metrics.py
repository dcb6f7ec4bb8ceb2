"""Accuracy, spread, bins and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.report.comparison import BINS, Spread, bins_of, calibration_error


def test_spread_is_the_middle_and_the_ends() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0, 2.5])
    assert (spread.median, spread.low, spread.high) == (2.5, 1.0, 10.0)
    assert spread.relative == 9 / 2.5
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)


def test_the_middle_half_is_told_of_five_values_or_more() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 9.0]).middle == (1.0, 9.0)
    five = Spread.of([9.0, 1.0, 4.0, 2.0, 3.0])
    assert (five.lower_quartile, five.upper_quartile) == five.middle == (2.0, 4.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_every_text_is_in_the_bin_of_its_value(texts: list[tuple[float, bool]]) -> None:
    value, right = (np.array(column) for column in zip(*texts, strict=True))
    bins = bins_of(value, right)
    assert len(bins) == BINS and [one.high for one in bins[:-1]] == [one.low for one in bins[1:]]
    for one in bins:
        inside = (value >= one.low) & ((value < one.high) | (one.high == 1))
        assert (one.texts, one.right) == (inside.sum(), right[inside].sum())
        assert one.accuracy is None if one.texts == 0 else one.accuracy == one.right / one.texts
        assert one.mean is None if one.texts == 0 else one.mean == pytest.approx(value[inside].mean())
    assert 0 <= calibration_error(bins) <= 1


def test_the_error_is_how_far_probability_and_truth_are_apart() -> None:
    # Three answers of 0.95 of which two are right, one of 0.55 that is wrong.
    bins = bins_of(np.array([0.95, 0.95, 0.95, 0.55]), np.array([True, True, False, False]))
    assert calibration_error(bins) == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * 0.55)
    honest = bins_of(np.full(4, 0.75), np.array([True, True, True, False]))
    assert calibration_error(honest) == pytest.approx(0)
