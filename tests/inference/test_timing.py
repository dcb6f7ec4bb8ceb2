"""Timing: runs take turns, texts are spread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastbert_jax.inference import timing as module
from fastbert_jax.inference.timing import evenly, interleaved_times


def test_runs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock: Iterator[int] = iter([0, 1, 1, 3, 10, 14, 20, 28])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    times = interleaved_times([lambda: order.append("a"), lambda: order.append("b")], repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert times == [[1, 4], [2, 8]]


@pytest.mark.parametrize(("total", "count", "indices"), [(5, 0, [0, 1, 2, 3, 4]), (3, 9, [0, 1, 2]), (9, 3, [0, 3, 6])])
def test_a_part_is_spread_evenly(total: int, count: int, indices: list[int]) -> None:
    assert evenly(total, count).tolist() == indices
