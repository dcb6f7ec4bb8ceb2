"""Timing: runs take turns there and back, steady drift cancels, texts are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fastbert_jax.inference import compare as module
from fastbert_jax.inference.compare import evenly, interleaved_times, speedups_over_first


def test_runs_take_turns_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock: Iterator[int] = iter([0, 1, 1, 3, 10, 14, 20, 28])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    times = interleaved_times([lambda: order.append("a"), lambda: order.append("b")], repeats=2)
    assert order == ["a", "b", "b", "a"]
    assert times == [[1, 8], [2, 4]]


@pytest.mark.parametrize("drift", [-0.02, 0.0, 0.03])
def test_a_steady_drift_changes_no_speedup(monkeypatch: pytest.MonkeyPatch, drift: float) -> None:
    """A machine that needs 1 + drift x t seconds for a second's work, and runs that are 1, 4, 2 and 8 times faster."""
    now = 0.0

    def work(seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            for _ in range(100):
                now += seconds / 100 * (1 + drift * now)

        return run

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    runs = [work(seconds) for seconds in (1, 0.25, 0.5, 0.125, 1)]
    times = interleaved_times(runs, repeats=5)
    speedups = np.array(speedups_over_first(times))
    assert speedups.shape == (3, 5)
    np.testing.assert_allclose(speedups, np.broadcast_to([[4], [2], [8]], (3, 5)), rtol=0.002)
    naive = np.array(times[0]) / np.array(times[1:-1])
    assert drift == 0 or abs(naive / [[4], [2], [8]] - 1).max() > 0.02


def test_the_first_run_is_taken_at_the_moment_of_the_other() -> None:
    assert speedups_over_first([[2.0], [1.0], [4.0]]) == [[pytest.approx(2 + 2 * 1.5 / 4)]]
    assert speedups_over_first([[2.0], [4.0]]) == []


@pytest.mark.parametrize(("total", "count", "indices"), [(5, 0, [0, 1, 2, 3, 4]), (3, 9, [0, 1, 2]), (9, 3, [0, 3, 6])])
def test_a_part_is_spread_evenly(total: int, count: int, indices: list[int]) -> None:
    assert evenly(total, count).tolist() == indices
