"""Thresholds found on arrays: the targets are met, per layer is never slower, and the guarantee holds in simulation."""

from __future__ import annotations

import numpy as np
import pytest

from fastbert_jax.inference.calibrate import (
    GRID,
    RECOMMENDED_DROP,
    SPEEDS,
    fastest_per_layer,
    fastest_with_guarantee,
    fastest_within,
    recommended_speed,
    slowest_of,
)
from fastbert_jax.inference.exit_outputs import ExitOutputs

LAYERS = 6
ASKED = (True,) * LAYERS


def simulated(texts: int, *, seed: int, classes: int = 3) -> tuple[ExitOutputs, np.ndarray]:
    """Exits that are more often right the later they are and the surer they say they are; and the right answers."""
    generator = np.random.default_rng(seed)
    expected_B = generator.integers(classes, size=texts)
    hardness_B = generator.random(texts)
    depth_Lx1 = np.arange(1, LAYERS + 1)[:, None] / LAYERS
    uncertainty_LxB = np.clip(hardness_B * (1.2 - depth_Lx1) + generator.normal(0, 0.05, (LAYERS, texts)), 0, 1)
    wrong_LxB = generator.random((LAYERS, texts)) < 0.6 * uncertainty_LxB + 0.02
    shift_LxB = generator.integers(1, classes, (LAYERS, texts))
    label_LxB = np.where(wrong_LxB, (expected_B + shift_LxB) % classes, expected_B)
    uncertainty_LxB = uncertainty_LxB.astype(np.float32)
    return ExitOutputs(uncertainty_LxB, label_LxB, 1 - uncertainty_LxB / 2), expected_B


def part_of(outputs: ExitOutputs, rows: np.ndarray | slice) -> ExitOutputs:
    """Some of the texts."""
    return ExitOutputs(*(values_LxB[:, rows] for values_LxB in vars(outputs).values()))


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("max_drop", [0.0, 0.005, 0.05])
def test_no_threshold_that_keeps_the_accuracy_is_faster(max_drop: float, classes: int) -> None:
    answers, expected_B = simulated(400, seed=1, classes=classes)
    floor = answers.accuracy(0.0, expected_B) - max_drop
    speed = fastest_within(answers, expected_B, max_drop=max_drop)
    assert answers.accuracy(speed, expected_B) >= floor - 1e-9
    for other in GRID:
        if answers.mean_depth(other) < answers.mean_depth(speed):
            assert answers.accuracy(other, expected_B) < floor


def test_per_layer_thresholds_keep_the_accuracy_and_are_faster() -> None:
    answers, expected_B = simulated(400, seed=2)
    one = fastest_within(answers, expected_B, max_drop=0.01)
    several_L = fastest_per_layer(answers, expected_B, max_drop=0.01, start=one, asked=ASKED)
    assert several_L.shape == (LAYERS,)
    assert answers.accuracy(several_L, expected_B) >= answers.accuracy(0.0, expected_B) - 0.01 - 1e-9
    assert answers.mean_depth(several_L) < answers.mean_depth(one)
    frozen_L = fastest_per_layer(answers, expected_B, max_drop=0.01, start=one, asked=(False,) * (LAYERS - 1) + (True,))
    np.testing.assert_array_equal(frozen_L, np.full(LAYERS, one, np.float32))


def test_where_nothing_may_be_lost_and_exits_are_bad_full_depth_is_left() -> None:
    label_LxB = np.zeros((3, 50), int)
    label_LxB[-1] = 1
    answers = ExitOutputs(np.zeros((3, 50), np.float32), label_LxB, np.ones((3, 50)))
    assert fastest_within(answers, np.ones(50, int), max_drop=0.1) == 0
    assert fastest_with_guarantee(answers, agreement=0.9, confidence=0.9) == 0


def lost_at(outputs: ExitOutputs, expected_B: np.ndarray, speed: float) -> int:
    right_B, full_B = (outputs.labels_B(threshold) == expected_B for threshold in (speed, 0.0))
    return int((full_B & ~right_B).sum()) - int((right_B & ~full_B).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("texts", [30, 300, 3000])
def test_up_to_the_recommended_speed_no_speed_loses_half_a_point_and_the_next_faster_one_does(
    texts: int, seed: int
) -> None:
    outputs, expected_B = simulated(texts, seed=seed)
    speed, allowed = recommended_speed(outputs, expected_B), RECOMMENDED_DROP * texts
    assert all(lost_at(outputs, expected_B, slower) <= allowed for slower in SPEEDS if slower <= speed)
    faster = [one for one in SPEEDS if outputs.mean_depth(one) < outputs.mean_depth(speed)]
    tried = [one for one in SPEEDS if speed < one <= faster[0]] if faster else []
    assert not faster or max(lost_at(outputs, expected_B, one) for one in tried) > allowed
    assert speed == 0 or outputs.mean_depth(speed) < outputs.mean_depth(max([0, *(s for s in SPEEDS if s < speed)]))


def test_a_speed_is_not_recommended_for_what_a_higher_one_wins_back() -> None:
    """The first exit is wrong where it is fairly certain, and right, unlike the last, where it is not."""
    uncertainty_B, expected_B = np.repeat(np.float32([0.2, 0.6]), 50), np.ones(100, int)
    label_LxB = np.stack([np.repeat([0, 1], 50), np.repeat([1, 0], 50)])
    outputs = ExitOutputs(np.stack([uncertainty_B, uncertainty_B]), label_LxB, np.ones((2, 100)))
    assert lost_at(outputs, expected_B, 0.61) == 0 and recommended_speed(outputs, expected_B) == 0
    outputs.uncertainty_LxB[:, 0] = 0.05  # one text alone, which it has wrong: one of 100 is more than half a point
    assert recommended_speed(outputs, expected_B) == 0
    outputs.label_LxB[0, 0] = 1
    assert recommended_speed(outputs, expected_B) == 0.06


@pytest.mark.slow
def test_the_guarantee_holds_as_often_as_it_says() -> None:
    population, _ = simulated(200_000, seed=3)
    full = population.labels_B(0.0)
    agreement_of = {float(speed): float((population.labels_B(speed) == full).mean()) for speed in GRID}
    agreement_of[0.0] = 1.0
    agreement, confidence, draws = 0.8, 0.8, 300
    generator = np.random.default_rng(4)
    found = []
    for _ in range(draws):
        rows = generator.choice(200_000, 400, replace=False)
        part = part_of(population, rows)
        found.append(fastest_with_guarantee(part, agreement=agreement, confidence=confidence))
    broken = np.mean([agreement_of[speed] < agreement for speed in found])
    three_deviations = 3 * np.sqrt(confidence * (1 - confidence) / draws)
    assert broken <= 1 - confidence + three_deviations
    assert 0.01 < broken  # it does not keep its promise by promising nothing
    assert np.median(found) > GRID[0]


def test_more_texts_and_less_to_promise_allow_more_speed() -> None:
    answers, _ = simulated(4000, seed=5)
    few = part_of(answers, slice(200))
    speeds = [
        fastest_with_guarantee(few, agreement=0.85, confidence=0.95),
        fastest_with_guarantee(answers, agreement=0.85, confidence=0.95),
        fastest_with_guarantee(answers, agreement=0.7, confidence=0.95),
    ]
    assert speeds == sorted(speeds) and speeds[0] < speeds[2]


def test_the_smallest_threshold_of_a_depth() -> None:
    answers, _ = simulated(400, seed=6)
    speed = slowest_of(answers, depth=3.0)
    assert answers.mean_depth(speed) <= 3.0
    below = GRID[GRID < speed]
    assert all(answers.mean_depth(other) > 3.0 for other in below)
    assert slowest_of(answers, depth=0.5) == 1
