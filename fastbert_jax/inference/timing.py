"""Timing that can be trusted: runs take turns, on texts spread evenly over the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def evenly(total: int, count: int) -> np.ndarray:
    """`count` of `total` indices, spread evenly, rising; all of them when `count` is 0 or more than there are."""
    if count == 0 or count >= total:
        return np.arange(total)
    return np.arange(count) * total // count


def interleaved_times(
    runs: Sequence[Callable[[], object]], repeats: int, on_run: Callable[[], None] | None = None
) -> list[list[float]]:
    """Seconds of every run in every repeat, `[runs][repeats]`.

    All runs take turns, so that what else the machine does falls on all of them alike. `on_run` is called after each,
    untimed.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, seconds in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            if on_run:
                on_run()
    return times
