"""What a report shows follows from its numbers: where it opens, and speedups where no clock ran."""

from __future__ import annotations

import dataclasses

import pytest

from fastbert_jax.report.html.estimates import estimated_speedups
from tests.report.comparisons import COMPARISON, EARLY, FULL, SIZE
from tests.report.reports import REPORT, speed


def test_it_opens_at_the_fastest_measured_speed_that_loses_little() -> None:
    assert REPORT.speeds[REPORT.start].point.speed == 0.5
    worse = dataclasses.replace(REPORT, speeds=(*REPORT.speeds[:3], speed(0.5, (4, 0, 0, 0, 0, 0), 0.9)))
    assert worse.speeds[worse.start].point.speed == 0.1  # 0.3 was not measured
    only = dataclasses.replace(COMPARISON, batch_sizes=(dataclasses.replace(SIZE, rows=(FULL,)),))
    none = dataclasses.replace(worse, comparison=only)
    assert none.speeds[none.start].point.speed == 0.3
    poor = tuple(speed(at, (4, 0, 0, 0, 0, 0), 0.97 - at) for at in (0.0, 0.1, 0.5))
    all_lose = dataclasses.replace(REPORT, speeds=poor)
    assert all_lose.speeds[all_lose.start].point.speed == 0.1


def test_a_speedup_lies_between_those_that_were_timed_and_a_timed_one_is_itself() -> None:
    points = [one.point for one in REPORT.speeds]
    slow = dataclasses.replace(EARLY, speed=0.1, mean_depth=4.5, speedups=(1.2,))
    found = estimated_speedups([slow, EARLY], points)
    assert found[0] == 1.0 and found[1] == 1.2 and found[3] == EARLY.speedup.median
    # Depth 3.25 skips 6 / 3.25 - 6 / 4.5 of the 6 / 2 - 6 / 4.5 between the two.
    share = (6 / 3.25 - 6 / 4.5) / (6 / 2 - 6 / 4.5)
    assert found[2] == pytest.approx(1.2 + share * (2.4 - 1.2))
    assert found[4] == EARLY.speedup.median  # nothing is promised beyond
