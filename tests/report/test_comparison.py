"""The comparison as numbers: what follows from the times that were taken."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.report.comparison import (
    BINS,
    ClassScores,
    Comparison,
    Share,
    Spread,
    bins_of,
    calibration_error,
    is_beyond_noise,
)
from tests.report.comparisons import COMPARISON, EARLY, FULL, SIZE
from tests.report.reports import HARM, MEASURED


def test_efficiency_is_measured_over_promised() -> None:
    assert EARLY.efficiency == pytest.approx(2.4 / (6 / 2.1))
    assert FULL.efficiency == 1


def test_noise_is_how_far_full_depth_is_from_itself() -> None:
    assert SIZE.noise.median == pytest.approx(0.01) and SIZE.noise.high == pytest.approx(0.03)
    assert SIZE.least_difference == pytest.approx(0.03)
    full = dataclasses.replace(FULL, speedups=(1.0, 0.99, 1.02, 1.01, 1.5))
    many = dataclasses.replace(SIZE, rows=(full, *SIZE.rows[1:]))
    assert many.least_difference == pytest.approx(0.02)  # one run in which the machine did something else


@pytest.mark.parametrize(
    ("speedups", "fastest"),
    [
        ((2.5, 2.6, 2.7), ["cascade"]),
        ((2.41, 2.32, 2.51), ["cascade", "bucketed"]),  # faster in every repeat, but within noise
        ((2.6, 2.2, 2.7), ["cascade", "bucketed"]),  # faster by more than noise, but not always
        ((2.4, 2.3, 2.5), ["bucketed", "cascade"]),
        ((2.2, 2.1, 2.3), ["bucketed"]),
    ],
)
def test_the_fastest_are_those_that_noise_cannot_tell_apart(speedups: tuple, fastest: list[str]) -> None:
    other = dataclasses.replace(EARLY, mode="cascade", speedups=speedups)
    size = dataclasses.replace(SIZE, rows=(FULL, EARLY, dataclasses.replace(EARLY, speed=0.1), other))
    assert [row.mode for row in size.fastest(0.5)] == fastest
    assert [row.mode for row in size.fastest(0.1)] == ["bucketed"]
    assert size.speeds == (0.5, 0.1)


def test_json_has_all_numbers() -> None:
    values = json.loads(json.dumps(COMPARISON.to_json()))
    assert (values["schema"], values["baseline_accuracy"], values["origin"]["device"]) == (1, 0.9735, "cpu")
    size = values["batch_sizes"][1]
    full, early, slow = size["rows"]
    assert full["seconds"] == [1.0, 0.99, 1.03] and size["seconds_again"] == [1.0, 1.0, 1.0]
    assert early["efficiency"] == EARLY.efficiency
    assert early["speedup"] == {
        "median": 2.4,
        "low": 2.3,
        "high": 2.5,
        "lower_quartile": None,
        "upper_quartile": None,
    }
    assert size["noise"]["median"] == pytest.approx(0.01)
    assert size["fastest"] == [
        {"speed": 0.5, "modes": ["bucketed"], "faster_than_full_depth": True},
        {"speed": 0.1, "modes": ["masked"], "faster_than_full_depth": False},
    ]
    assert slow["mode"] == "masked"


def test_json_can_be_read_again_and_an_older_file_too() -> None:
    values = json.loads(json.dumps(MEASURED.to_json()))
    assert Comparison.from_json(values) == MEASURED
    for size in values["batch_sizes"]:
        del size["baselines"]
        for row in size["rows"]:
            del row["texts_per_exit"], row["uncertainty"], row["gained"], row["lost"]
    for key in ("exits", "curve", "answers", "shown_speed", "baseline_gained", "baseline_lost"):
        del values[key]
    older = Comparison.from_json(values)
    assert older.batch_sizes == COMPARISON.batch_sizes and older.exits == older.curve == older.answers == ()


@pytest.mark.parametrize("values", [{}, {"rows": []}, {"schema": 2}, {"schema": 1}])
def test_json_of_another_form_is_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        Comparison.from_json(values)


def test_a_speedup_lies_between_those_that_were_timed_and_a_timed_one_is_itself() -> None:
    points = [
        dataclasses.replace(FULL, speed=speed, mean_depth=depth)
        for speed, depth in ((0.0, 6.0), (0.1, 4.5), (0.3, 3.25), (0.5, 2.0), (1.0, 1.0))
    ]
    slow = dataclasses.replace(EARLY, speed=0.1, mean_depth=4.5, speedups=(1.2,))
    found = dataclasses.replace(SIZE, rows=(FULL, slow, EARLY)).estimated_speedups("bucketed", points)
    assert found[0] == 1.0 and found[1] == 1.2 and found[3] == EARLY.speedup.median
    # Depth 3.25 skips 6 / 3.25 - 6 / 4.5 of the 6 / 2 - 6 / 4.5 between the two.
    share = (6 / 3.25 - 6 / 4.5) / (6 / 2 - 6 / 4.5)
    assert found[2] == pytest.approx(1.2 + share * (2.4 - 1.2))
    assert found[4] == EARLY.speedup.median  # nothing is extrapolated


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


def test_an_interval_is_wilsons() -> None:
    # Newcombe 1998, table 1, method 3.
    for right, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        share = Share.of(right, total)
        assert share and (round(share.low, 4), round(share.high, 4)) == (low, high)
    assert Share.of(0, 0) is None


@given(st.integers(1, 10_000), st.data())
def test_an_interval_holds_its_share_and_narrows_with_more_texts(total: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, total))
    share, more = Share.of(right, total), Share.of(4 * right, 4 * total)
    assert share and more and 0 <= share.low <= share.value + 1e-12 and share.value - 1e-12 <= share.high <= 1
    assert more.high - more.low < share.high - share.low


def test_noise_is_what_a_fair_coin_does_in_95_of_100_cases() -> None:
    """Texts that change are gained or lost like heads and tails; near 5 % the exact test may differ."""
    for changed in range(61):
        for lost in range(changed // 2 + 1):
            both_tails = 2 * sum(math.comb(changed, count) for count in range(lost + 1)) / 2**changed
            found = is_beyond_noise(changed - lost, lost)
            assert found == is_beyond_noise(lost, changed - lost)
            assert 0.04 < both_tails < 0.06 or found == (both_tails < 0.05), (changed, lost)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean_within_its_interval(right: int, missed: int, wrong: int) -> None:
    scores = ClassScores(label="a", texts=right + missed, given=right + wrong, right=right)
    if right + missed + wrong == 0:
        assert scores.f1 is scores.precision is scores.recall is None
        return
    assert scores.f1 and scores.f1.low <= scores.f1.value + 1e-12 and scores.f1.value <= scores.f1.high + 1e-12
    if right:
        assert scores.precision and scores.recall
        mean = 2 / (1 / scores.precision.value + 1 / scores.recall.value)
        assert scores.f1.value == pytest.approx(mean)


def test_json_has_every_class_group_and_interval() -> None:
    values = json.loads(json.dumps(MEASURED.to_json()))
    full, _, half = values["answers"]
    assert (full["speed"], half["speed"], values["shown_speed"]) == (0.0, 0.5, 0.5)
    first, _, never = full["classes"]
    assert (first["texts"], first["given"], first["right"], first["recall"]["value"]) == (2, 2, 2, 1.0)
    assert never["precision"] is never["recall"] is never["f1"] is None
    assert [one["value"] for one in full["groups"]] == ["en", HARM, "de"] and full["groups"][0]["accuracy"]["low"] < 1
    for one in (*values["exits"], *values["curve"], *values["batch_sizes"][0]["rows"]):
        assert one["accuracy_low"] < one["accuracy"] <= one["accuracy_high"] <= 1
