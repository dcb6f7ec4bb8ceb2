"""Accuracy and spread."""

from __future__ import annotations

import numpy as np
import pytest

from fastbert_jax.report.metrics import Spread, accuracy


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize("found", [np.zeros(3), np.zeros((2, 1))])
def test_accuracy_refuses_arrays_that_do_not_fit(found: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected two arrays of one shape with entries"):
        accuracy(found, np.zeros(2))
    with pytest.raises(ValueError, match="with entries"):
        accuracy(np.zeros(0), np.zeros(0))


def test_spread_is_the_middle_and_the_ends() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0, 2.5])
    assert (spread.median, spread.low, spread.high) == (2.5, 1.0, 10.0)
    assert spread.relative == 9 / 2.5
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)


def test_the_middle_half_is_told_of_five_values_or_more() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 9.0]).middle == (1.0, 9.0)
    five = Spread.of([9.0, 1.0, 4.0, 2.0, 3.0])
    assert (five.lower_quartile, five.upper_quartile) == five.middle == (2.0, 4.0)
